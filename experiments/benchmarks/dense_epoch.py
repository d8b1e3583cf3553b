"""784-64-784 with Adam at batch 32, 60,000 real examples an epoch: aejax, Keras, PyTorch.

    python experiments/benchmarks/dense_epoch.py [--one-core]

All three train the same network (ReLU, sigmoid, mean squared error, learning rate 1e-3) on
Fashion-MNIST, one epoch each in turn. The images are in memory, as float32 in [0, 1] (aejax:
uint8), and are shuffled every epoch. Keras: `fit` with its PyTorch and JAX backends, the latter
with steps_per_execution=25. PyTorch: a plain loop over a shuffled tensor, eager and
`torch.compile`.

Cost: 2 minutes on two cores of an AMD EPYC. Results: dense_epoch.md beside this file.
"""

import os

import common


def keras_fit(backend: str):
    """Starts a child process, as the backend of Keras cannot be changed within a process.

    Returns:
      a function that trains an epoch in the child: [wall seconds, CPU seconds, loss].
    """
    import subprocess
    import sys

    env = {**os.environ, "KERAS_BACKEND": backend, "BENCH_CHILD": "1"}
    child = subprocess.Popen(
        [sys.executable, __file__],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def epoch():
        child.stdin.write("go\n")
        child.stdin.flush()
        line = child.stdout.readline()
        while line and not line.startswith("took"):
            line = child.stdout.readline()
        return [float(v) for v in line.split()[1:]]

    epoch.close = child.terminate
    return epoch


def child():
    """Keras with the backend of the environment; trains an epoch for every line of its input."""
    import sys
    import time

    import keras
    import numpy as np

    x = np.load(os.environ["BENCH_DATA"])
    model = keras.Sequential(
        [
            keras.layers.Input((784,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(784, activation="sigmoid"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
        "mse",
        jit_compile=keras.backend.backend() == "jax",
        steps_per_execution=25 if keras.backend.backend() == "jax" else 1,
    )
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        h = model.fit(x, x, batch_size=32, epochs=1, shuffle=True, verbose=0)
        took = time.perf_counter() - wall, time.process_time() - cpu
        print("took", *took, h.history["loss"][0], flush=True)


def torch_loops(x):
    """{name: a function that trains an epoch} of PyTorch."""
    import torch

    data = torch.from_numpy(x)

    def loop(compiled: bool):
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(784, 64), torch.nn.ReLU(), torch.nn.Linear(64, 784), torch.nn.Sigmoid()
        )
        optimiser = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

        def loss_of(batch):
            return torch.nn.functional.mse_loss(net(batch), batch)

        run = torch.compile(loss_of) if compiled else loss_of

        def epoch():
            order = torch.randperm(len(data))
            for rows in order.split(32):
                optimiser.zero_grad(set_to_none=True)
                loss = run(data[rows])
                loss.backward()
                optimiser.step()
            epoch.loss = loss.item()

        return epoch

    return {"PyTorch eager": loop(False), "PyTorch compiled": loop(True)}


def main():
    args = common.begin(__doc__)
    if "BENCH_CHILD" in os.environ:
        return child()
    import tempfile

    import numpy as np

    from aejax import config

    c = config.load("experiments/reconstruct/dense_784.py" + (":smoke" if args.smoke else ""))
    ours = common.Training(c, args.data_dir)
    images = np.asarray(ours.resident["image"])
    images = images.reshape(-1, *images.shape[-3:])[: ours.parts.pipeline.n]
    x = (images.reshape(len(images), -1) / np.float32(255)).astype(np.float32)
    steps = len(x) // c.data.batch // ours.k * ours.k

    cases = {"aejax": lambda: ours.run(steps)}
    if x.shape[1] == 784:
        cases |= torch_loops(x)
    times = common.in_turn(cases, min(args.rounds, 3))
    losses = {"aejax": ours.run(steps)}
    if x.shape[1] == 784:
        losses |= {name: cases[name].loss for name in cases if name != "aejax"}
        with tempfile.TemporaryDirectory() as folder:
            os.environ["BENCH_DATA"] = os.path.join(folder, "x.npy")
            np.save(os.environ["BENCH_DATA"], x)
            for backend in ("jax", "torch"):
                epoch = keras_fit(backend)
                epoch()
                pairs = []  # in turn with ours again
                for _ in range(min(args.rounds, 3)):
                    pairs.append((epoch(), common.in_turn({"a": cases["aejax"]}, 1, warm=0)["a"]))
                epoch.close()
                wall, cpu, loss = np.median([p[0] for p in pairs], axis=0)
                times[f"Keras fit, {backend}"] = common.Time(wall, cpu, args.one_core)
                losses[f"Keras fit, {backend}"] = loss
                times["aejax"] = common.Time(
                    *np.median([times["aejax"][:2], *(p[1][:2] for p in pairs)], axis=0),
                    args.one_core,
                )
    best = times["aejax"].s
    rows = [
        (
            name,
            f"{t.s:.2f}",
            f"{len(x) / t.s:,.0f}",
            f"{t.s / best:.1f}",
            f"{losses[name]:.4f}",
        )
        for name, t in times.items()
    ]
    keras = min((t.s for n, t in times.items() if "Keras" in n), default=float("nan"))
    torch = min((t.s for n, t in times.items() if "PyTorch" in n), default=float("nan"))
    text = f"""{len(x)} examples, {steps} steps an epoch, {ours.k} steps per dispatch;
aejax compiled in {ours.compile_seconds:.1f} s. Keras' best is {keras / best:.1f} times as long as
aejax, PyTorch's best {torch / best:.1f} times.

{common.table(["", "s per epoch", "examples/s", "times aejax", "loss at the end"], rows)}
"""
    common.write(__file__, text, args, "torch", "keras")


if __name__ == "__main__":
    main()
