"""A part of a model as ONNX, made by jax2onnx and checked in onnxruntime.

jax2onnx wants other versions of orbax and jax than aejax has, so it lives in an environment of its
own (`folder`), which is made at first use by `venv` and `pip`. The model goes there as a folder
(folder.py); `onnx_worker` does the rest there, with this package's own source.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from aejax import files
from aejax.errors import UserError
from aejax.export import folder as model_folder
from aejax.machine.cache import cache_folder
from aejax.trained import Trained

# jax2onnx 0.17.1 pins orbax-checkpoint < 0.11.37 and does not know jax 0.12; the rest is what
# `aejax.load` of a folder imports.
PACKAGES = ("jax2onnx==0.17.1", "jax<0.11", "onnxruntime>=1.20", "flax>=0.12", "optax>=0.2.8",
            "ml-collections>=1.1", "einops>=0.8", "jaxtyping>=0.3", "etils[epath]>=1.15",
            "constriction>=0.4.1", "safetensors>=0.6", "pillow>=12")  # fmt: skip
TOLERANCE = 1e-4  # of the largest output, or of 1
PIP_SECONDS = 1800
MARK = "aejax-packages.json"  # in the environment, written last


def folder() -> pathlib.Path:
    """The folder of the environment: AEJAX_ONNX_ENV, else one among what can be made again."""
    asked = os.environ.get("AEJAX_ONNX_ENV")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return pathlib.Path(asked).expanduser() if asked else cache_folder() / f"onnx-py{version}"


def is_made() -> bool:
    """Whether the environment is there and has the packages of today."""
    mark = folder() / MARK
    return mark.is_file() and json.loads(mark.read_text()) == list(PACKAGES)


def environment() -> pathlib.Path:
    """The Python of the environment, which is made if it is not whole.

    Raises:
      UserError: it cannot be made: no venv, no network, or no such packages.
    """
    where = folder()
    python = where / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if is_made():
        return python
    print(f"making the environment of jax2onnx in {where}, once: minutes", file=sys.stderr)
    for command in (
        [sys.executable, "-m", "venv", str(where)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES],
    ):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PIP_SECONDS, env=_environ(None)
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise _impossible(where, str(e)) from e
        if done.returncode:
            lines = [t for t in (done.stderr or done.stdout).splitlines() if "ERROR" in t.upper()]
            raise _impossible(where, lines[-1] if lines else f"exit status {done.returncode}")
    files.write_atomically(where / MARK, json.dumps(PACKAGES) + "\n")
    return python


def _impossible(where: pathlib.Path, why: str) -> UserError:
    return UserError(
        f"the environment of jax2onnx cannot be made in {where} ({why.strip()}); --onnx needs a "
        "package registry once, or AEJAX_ONNX_ENV, an environment with "
        f"{' '.join(PACKAGES[:3])}; StableHLO (without --onnx) needs neither"
    )


def _environ(source: pathlib.Path | None) -> dict[str, str]:
    """The environment variables of a process in there, which sees this package in `source` only."""
    values = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "XLA_", "JAX_"))}
    values |= {"JAX_PLATFORMS": "cpu", "AEJAX_NO_REEXEC": "1", "PYTHONWARNINGS": "ignore"}
    return values | ({"PYTHONPATH": str(source)} if source else {})


def write(
    trained: Trained,
    part: str,
    path: str | pathlib.Path,
    size: tuple[int, int] | None = None,
    pad_inside: bool = False,
    force: bool = False,
) -> float:
    """Writes PATH and PATH.json; the batch is free, sizes are fixed (`size`, else those of the
    training). Returns by how much onnxruntime's result differs from the model's.

    Raises:
      UserError: a file exists, the environment cannot be made, jax2onnx does not know an operation
        of the model, or the results differ.
    """
    path = pathlib.Path(path)
    about = path.with_name(f"{path.name}.json")
    files.check_outputs([path, about], force=force)
    from aejax.export.parts import part_of

    if size is None and trained.shape:
        size = (trained.shape[0], trained.shape[1])
    part_of(trained, part, size, pad_inside)  # its errors, before minutes of work
    python = environment()
    with tempfile.TemporaryDirectory() as scratch:
        inside = pathlib.Path(scratch)
        model_folder.write(trained, inside / "model")
        (inside / "source").mkdir()
        (inside / "source" / "aejax").symlink_to(pathlib.Path(__file__).resolve().parents[1])
        job = {"model": str(inside / "model"), "part": part, "size": size,
               "pad_inside": pad_inside, "out": str(inside / "model.onnx")}  # fmt: skip
        command = [str(python), "-m", "aejax.export.onnx_worker", json.dumps(job)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=_environ(inside / "source"), cwd=scratch
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise UserError(f"jax2onnx cannot make ONNX of {trained.name}: {lines[-1]}")
        report = json.loads(done.stdout.splitlines()[-1])
        off = report["largest_difference"]
        if not off <= TOLERANCE:
            raise UserError(f"the ONNX model is {off:.1e} off {trained.name}; nothing was written")
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, (inside / "model.onnx").read_bytes())
        report |= {"model": trained.name, "task": trained.config.task}
        files.write_atomically(about, json.dumps(report, indent=1) + "\n")
    return off
