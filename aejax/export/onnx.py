"""Writes a part of a model as ONNX, by jax2onnx, and checks it in onnxruntime.

jax2onnx needs other versions of orbax and jax than aejax, so it is installed in a separate virtual
environment (`folder`), which is created at first use by `venv` and `pip`. The model is passed to a
process there as a folder (folder.py); that process runs `onnx_worker` of this package's source.
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
TOLERANCE = 1e-4  # relative to the largest output, or to 1 if that is larger
PIP_SECONDS = 1800
MARK = "aejax-packages.json"  # the installed packages; written last, when the environment is ready


def folder() -> pathlib.Path:
    """The folder of the environment: AEJAX_ONNX_ENV, else one in the cache folder."""
    chosen = os.environ.get("AEJAX_ONNX_ENV")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return pathlib.Path(chosen).expanduser() if chosen else cache_folder() / f"onnx-py{version}"


def is_made() -> bool:
    """Whether the environment is complete and has the packages of this version of aejax."""
    mark = folder() / MARK
    return mark.is_file() and json.loads(mark.read_text()) == list(PACKAGES)


def environment() -> pathlib.Path:
    """The Python of the environment, which is created unless it is complete.

    Raises:
      UserError: it cannot be created: no venv, no network, or no such packages.
    """
    env_folder = folder()
    python = env_folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if is_made():
        return python
    print(
        f"creating the environment of jax2onnx in {env_folder}; this takes minutes, once",
        file=sys.stderr,
    )
    for command in (
        [sys.executable, "-m", "venv", str(env_folder)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES],
    ):
        try:
            process = subprocess.run(
                command, capture_output=True, text=True, timeout=PIP_SECONDS, env=_environ(None)
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise _cannot_create(env_folder, str(e)) from e
        if process.returncode:
            output = process.stderr or process.stdout
            lines = [line for line in output.splitlines() if "ERROR" in line.upper()]
            reason = lines[-1] if lines else f"exit status {process.returncode}"
            raise _cannot_create(env_folder, reason)
    files.write_atomically(env_folder / MARK, json.dumps(PACKAGES) + "\n")
    return python


def _cannot_create(env_folder: pathlib.Path, reason: str) -> UserError:
    return UserError(
        f"cannot create the environment of jax2onnx in {env_folder} ({reason.strip()}); --onnx "
        "needs a package registry once, or AEJAX_ONNX_ENV, the folder of an environment with "
        f"{' '.join(PACKAGES[:3])}; StableHLO (without --onnx) needs neither"
    )


def _environ(source: pathlib.Path | None) -> dict[str, str]:
    """The environment variables of a process of the environment, which imports aejax from `source`
    only; None = it does not import aejax."""
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
    """Writes PATH and PATH.json. The batch size is free, heights and widths are fixed.

    Args:
      part: one of `parts.NAMES`; "" = the whole model.
      size: height and width of the images; None = those of the training.
      pad_inside: see `parts.part_of`.
      force: overwrites files that exist.

    Returns:
      The largest difference of onnxruntime's output from the model's, relative to the largest
      output or to 1.

    Raises:
      UserError: a file exists, the environment cannot be created, jax2onnx does not know an
        operation of the model, or the outputs differ by more than TOLERANCE.
    """
    path = pathlib.Path(path)
    about = path.with_name(f"{path.name}.json")
    files.check_outputs([path, about], force=force)
    from aejax.export.parts import part_of

    if size is None and trained.shape:
        size = (trained.shape[0], trained.shape[1])
    part_of(trained, part, size, pad_inside)  # raises what is wrong before minutes of work
    python = environment()
    with tempfile.TemporaryDirectory() as scratch:
        temporary = pathlib.Path(scratch)
        model_folder.write(trained, temporary / "model")
        source = temporary / "source"  # a folder with nothing but this package
        source.mkdir()
        (source / "aejax").symlink_to(pathlib.Path(__file__).resolve().parents[1])
        job = {"model": str(temporary / "model"), "part": part, "size": size,
               "pad_inside": pad_inside, "out": str(temporary / "model.onnx")}  # fmt: skip
        command = [str(python), "-m", "aejax.export.onnx_worker", json.dumps(job)]
        process = subprocess.run(
            command, capture_output=True, text=True, env=_environ(source), cwd=scratch
        )
        if process.returncode:
            lines = process.stderr.strip().splitlines() or ["no message"]
            raise UserError(f"jax2onnx cannot convert {trained.name}: {lines[-1]}")
        report = json.loads(process.stdout.splitlines()[-1])
        error = report["largest_difference"]
        if not error <= TOLERANCE:
            raise UserError(
                f"the output of the ONNX model differs by {error:.1e} from that of {trained.name}; "
                "nothing was written"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, (temporary / "model.onnx").read_bytes())
        report |= {"model": trained.name, "task": trained.config.task}
        files.write_atomically(about, json.dumps(report, indent=1) + "\n")
    return error
