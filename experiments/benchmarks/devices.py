"""1, 2 and 4 emulated devices, 1 and 2 processes: the same training, and what dividing it costs.

    python experiments/benchmarks/devices.py

A convolutional autoencoder on crops of the bundled photos, global batch 32, in each mode. All
devices share the cores of the machine, so a step cannot get faster; a longer step is the cost of
dividing the work (smaller products, averaging over devices). Equal losses after the same number of
steps show that the training is the same.

Cost: 6 minutes on two cores of an AMD EPYC. Results: devices.md beside this file.
"""

import json
import os
import socket
import subprocess
import sys
import time

import common


def settings(smoke: bool):
    """The config of all runs."""
    from aejax.config import base, part

    c = base()
    c.data.source, c.data.crop, c.data.batch, c.data.channels = "bundled:photos", 32, 32, 3
    widths = (16, 32) if smoke else (64, 128)
    c.model.f_E = part("conv", widths=widths, spatial=True)
    c.model.f_D = part("conv", widths=widths, spatial=True)
    return c


def child(mode: str, steps: int, smoke: bool):
    """One process of a run: prints {"loss", "seconds"} per step."""
    from aejax.cluster import processes

    processes.initialise()
    c = settings(smoke)
    c.train.mode = mode
    training = common.Training(c)
    training.run(2)
    start = time.perf_counter()
    loss = training.run(steps)
    seconds = (time.perf_counter() - start) / steps
    print(json.dumps({"loss": loss, "seconds": seconds}), flush=True)


def run(mode: str, devices: int, processes: int, steps: int, smoke: bool) -> dict:
    """Trains in child processes; returns {"loss", "seconds"} of the first."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    children = []
    for i in range(processes):
        env = {**os.environ, "BENCH_CHILD": f"{mode},{steps},{int(smoke)}", "JAX_PLATFORMS": "cpu"}
        env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices // processes}"
        if processes > 1:
            env |= {"AEJAX_COORDINATOR": f"localhost:{port}", "AEJAX_PROCESS_ID": str(i)}
            env["AEJAX_NUM_PROCESSES"] = str(processes)
        children.append(
            subprocess.Popen([sys.executable, __file__], env=env, stdout=subprocess.PIPE, text=True)
        )
    outs = [c.communicate(timeout=1800)[0] for c in children]
    assert all(c.returncode == 0 for c in children), outs
    return json.loads(outs[0].splitlines()[-1])


def main():
    args = common.begin(__doc__)
    if "BENCH_CHILD" in os.environ:
        mode, steps, smoke = os.environ["BENCH_CHILD"].split(",")
        return child(mode, int(steps), bool(int(smoke)))
    steps = 2 if args.smoke else 20
    plans = [("pmap", 1, 1), ("pmap", 2, 1), ("pmap", 4, 1), ("jit", 4, 1), ("fsdp", 4, 1)]
    plans += [("pmap", 2, 2), ("jit", 2, 2)]
    if args.smoke:
        plans = [("pmap", 1, 1), ("pmap", 2, 2)]
    results = {plan: [] for plan in plans}
    for _ in range(1 if args.smoke else 3):  # in turn
        for plan in plans:
            results[plan].append(run(*plan, steps, args.smoke))
            print(plan, results[plan][-1], flush=True)
    rows, first = [], None
    for (mode, devices, processes), runs in results.items():
        seconds = sorted(r["seconds"] for r in runs)[len(runs) // 2]
        first = first or seconds
        rows.append(
            (mode, devices, processes, f"{1e3 * seconds:.0f}", f"{seconds / first:.2f}",
             f"{runs[0]['loss']:.6f}")
        )  # fmt: skip
    header = ["mode", "devices", "processes", "ms per step", "times one device"]
    header += [f"loss after {steps + 2} steps"]
    how = "medians of 3 rounds, in each of which every case ran in turn, in processes of its own"
    common.write(__file__, common.table(header, rows), args, method=how)


if __name__ == "__main__":
    main()
