"""A folder with a page that denoises a dropped picture in the browser, by onnxruntime-web.

    index.html, model.onnx, model.onnx.json, ort/

Any server of files will do (`python -m http.server`); pictures are not sent to it. onnxruntime-web
comes from the npm registry by `npm pack`, once, and is kept in the cache.
"""

import importlib.resources
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

from aejax import files
from aejax.errors import UserError
from aejax.export import onnx
from aejax.export.parts import part_of
from aejax.machine.cache import cache_folder
from aejax.trained import Trained

VERSION = "1.30.0"  # of onnxruntime-web
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
TILE = (256, 256)  # height and width of what the model takes at once
NPM_SECONDS = 900


def runtime() -> pathlib.Path:
    """The folder of onnxruntime-web's files, fetched if they are not there.

    Raises:
      UserError: there is no npm, no network or no such version.
    """
    where = cache_folder() / f"onnxruntime-web-{VERSION}"
    if all((where / name).is_file() for name in RUNTIME):
        return where
    npm = shutil.which("npm")
    if npm is None:
        raise _impossible("there is no npm")
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--silent"]
        try:
            done = subprocess.run(
                command, cwd=scratch, capture_output=True, text=True, timeout=NPM_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise _impossible(str(e)) from e
        packed = list(pathlib.Path(scratch).glob("*.tgz"))
        if done.returncode or len(packed) != 1:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise _impossible(lines[-1] if lines else f"npm ends with {done.returncode}")
        where.mkdir(parents=True, exist_ok=True)
        with tarfile.open(packed[0]) as archive:
            for name in RUNTIME:
                member = archive.extractfile(f"package/dist/{name}")
                if member is None:
                    raise _impossible(f"it has no {name}")
                files.write_atomically(where / name, member.read())
    return where


def _impossible(why: str) -> UserError:
    return UserError(
        f"onnxruntime-web {VERSION} cannot be fetched ({why}); --web needs `npm` and the npm "
        "registry once; --onnx needs neither"
    )


def write(trained: Trained, folder: str | pathlib.Path, force: bool = False) -> pathlib.Path:
    """Writes the folder and returns it.

    Raises:
      UserError: no blind denoiser of gray or colour, a file exists, npm cannot be used, or see
        `onnx.write`.
    """
    folder = pathlib.Path(folder)
    if trained.config.task != "denoise":
        raise UserError(f'--web takes a denoiser; "{trained.name}" is for {trained.config.task}')
    first, *others = part_of(trained, "", TILE).inputs
    if first.shape[-1] not in (1, 3) or {i.name for i in others} - {"sigma"}:
        raise UserError(f'the page cannot give "{trained.name}" what it takes')
    page = folder / "index.html"
    copies = [folder / "ort" / name for name in RUNTIME]
    files.check_outputs([page, *copies], force=force)
    source = runtime()
    onnx.write(trained, "", folder / "model.onnx", TILE, force=force)
    (folder / "ort").mkdir(exist_ok=True)
    for copy in copies:
        files.write_atomically(copy, (source / copy.name).read_bytes())
    text = importlib.resources.files("aejax.export").joinpath("web.html").read_text()
    files.write_atomically(page, text)
    return folder
