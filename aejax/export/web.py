"""Writes a folder with a web page that denoises pictures in the browser, by onnxruntime-web.

    index.html, model.onnx, model.onnx.json, ort/

Any file server can serve it (`python -m http.server`); pictures are not sent to the server.
onnxruntime-web is downloaded from the npm registry by `npm pack`, once, and kept in the cache.
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
TILE = (256, 256)  # height and width of the tiles that the model processes
NPM_SECONDS = 900


def runtime() -> pathlib.Path:
    """The folder with the files of onnxruntime-web, which are downloaded at first use.

    Raises:
      UserError: there is no npm, no network or no such version.
    """
    folder = cache_folder() / f"onnxruntime-web-{VERSION}"
    if all((folder / name).is_file() for name in RUNTIME):
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise _cannot_download("npm is not installed")
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--silent"]
        try:
            process = subprocess.run(
                command, cwd=scratch, capture_output=True, text=True, timeout=NPM_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise _cannot_download(str(e)) from e
        packed = list(pathlib.Path(scratch).glob("*.tgz"))
        if process.returncode or len(packed) != 1:
            lines = (process.stderr or process.stdout).strip().splitlines()
            raise _cannot_download(lines[-1] if lines else f"npm exit status {process.returncode}")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(packed[0]) as archive:
            for name in RUNTIME:
                member = archive.extractfile(f"package/dist/{name}")
                if member is None:
                    raise _cannot_download(f"the package has no {name}")
                files.write_atomically(folder / name, member.read())
    return folder


def _cannot_download(reason: str) -> UserError:
    return UserError(
        f"cannot download onnxruntime-web {VERSION} ({reason}); --web needs `npm` and the npm "
        "registry once; --onnx needs neither"
    )


def write(trained: Trained, folder: str | pathlib.Path, force: bool = False) -> pathlib.Path:
    """Writes the folder and returns its path.

    Raises:
      UserError: the model is no blind denoiser of gray or RGB images, a file exists,
        onnxruntime-web cannot be downloaded, or as `onnx.write`.
    """
    folder = pathlib.Path(folder)
    if trained.config.task != "denoise":
        raise UserError(f'--web takes a denoiser; "{trained.name}" is for {trained.config.task}')
    first, *others = part_of(trained, "", TILE).inputs
    if first.shape[-1] not in (1, 3) or {i.name for i in others} - {"sigma"}:
        raise UserError(
            f'--web takes a blind denoiser of 1 or 3 channels; "{trained.name}" has other inputs'
        )
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
