"""Every command of README and docs is run as it is printed, on pictures made here.

Each document is one shell session in one empty folder, with `experiments` and `launch` of the
checkout in it and a few pictures. What cannot be run stands in NOT_RUN with its reason; what is
made shorter stands in SHORTER. A command that is added to a document is run without another word.
"""

import importlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from aejax.config import load_module
from aejax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    p.relative_to(ROOT).as_posix()
    for p in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "launch" / "README.md",
              *ROOT.glob("experiments/*/README.md"))
    if p.is_file() and "_build" not in p.parts
)  # fmt: skip
PROGRAM = re.compile(r"(aejax|python|sh|gcloud|docker|kubectl|export|pip|git|[A-Z_]+=\S*) ")

# What each session is made shorter by: every occurrence of the left is replaced by the right.
SHORTER = {
    "study experiments/quickstart.py": "study experiments/quickstart.py:smoke",
    "experiments/quickstart.py:photos": "experiments/quickstart.py:photos,smoke",
    "experiments/quickstart.py:digits": "experiments/quickstart.py:digits,smoke",
    "denoise/gray.py ": "denoise/gray.py:smoke ",
    "eval-denoise bsd68 ": "eval-denoise my/small ",
    "eval-denoise cbsd68 ": "eval-denoise my/small ",
    "eval-denoise set12 ": "eval-denoise my/small ",
    "eval-denoise kodak ": "eval-denoise my/small ",
    "--model realtime gray ": "--model realtime ",  # the picture here is in colour
    "compress/lossless.py ": "compress/lossless.py:smoke ",
    "--config.data.crop=64": "--config.data.crop=32",
    '"--config.train.length=100 steps"': '"--config.train.length=2 steps"',
    '"--config.train.length=80 epochs"': '"--config.train.length=6 steps"',
    "folder:imagenet/train packs/imagenet --size 256": "folder:my/photos packs/imagenet --size 64",
    "folder:imagenet/val packs/imagenet --size 256": "folder:my/photos packs/imagenet --size 64",
    "launch gke experiments/quickstart.py": "launch gke experiments/quickstart.py --dry-run",
}
# What is not run: a regular expression of the command, and why.
NOT_RUN = {
    r"^(gcloud|docker|kubectl) ": "needs a cloud project, a cluster or Docker",
    r"^sh run ": "makes an environment and installs: see tests of the wheel",
    r"^AEJAX_COORDINATOR=": "one of several processes that wait for each other",
    r"tfds:fashion_mnist": "needs the data folder",
    r"aejax\.denoising\.ship": "needs a trained run and writes into the package",
    r"lossless\.freeze": "writes into the package",
    r"eval-denoise polyu ": "needs the pairs of PolyU",
    r"^pip install ": "installs the checkout: see tests of the wheel",
    r" --onnx ": "makes an environment of its own: see tests/export/test_onnx.py",
    r" --web ": "makes the environment of --onnx and needs npm: see tests/export/test_web.py",
    r"^python -m http.server": "runs until it is stopped",
    r"^aejax serve": "runs until it is stopped: see tests of serve",
    r"^export GLIBC_TUNABLES": "a setting, no command",
}
LONGEST = 900  # seconds of a command: what takes longer is made shorter, or not run
# Python blocks: what stands before them in a reader's program.
BEFORE_PYTHON = """
import numpy as np
x = np.random.default_rng(0).random((2, 96, 96, 3), np.float32)
"""


def commands(text):
    """(kind, code) of each command in the order of the text: "shell" lines whole (continuations
    joined, comments dropped) and "python" blocks."""
    found, lines, fence = [], iter(text.splitlines()), None
    block = []
    for line in lines:
        if line.startswith("```"):
            if fence == "python":
                found.append(("python", "\n".join(block)))
            fence, block = (None, []) if fence is not None else (line[3:].strip(), [])
            continue
        if fence == "python":
            block.append(line)
        if fence == "python" or (fence is None and not line.startswith("    ")):
            continue
        while line.rstrip().endswith("\\"):
            line = line.rstrip()[:-1] + " " + next(lines).strip()
        line = re.sub(r"\s#\s.*", "", line).strip()
        if PROGRAM.match(line):
            found.append(("shell", " ".join(line.split())))
    return found


def pictures(folder):
    """A stranger's folder: photographs of several sizes, one turned by EXIF, and a hidden file."""
    from skimage import data

    photo, rng = data.astronaut(), np.random.default_rng(0)
    mine = folder / "my" / "photos"
    mine.mkdir(parents=True)
    for i in range(12):
        h, w = rng.integers(100, 160, 2)
        top, left = rng.integers(0, 512 - 160, 2)
        Image.fromarray(photo[top : top + h, left : left + w]).save(mine / f"{i}.jpg")
    (mine / ".DS_Store").write_bytes(b"\0")
    Image.fromarray(photo[:192, 200:392]).save(folder / "photo.png")
    for name in ("noisy", "my/small"):
        (folder / name).mkdir()
        Image.fromarray(photo[100:140, 200:240]).save(folder / name / "1.png")
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (28, 28), np.uint8)).save(folder / f"{name}.png")
    (folder / "images" / "shoes").mkdir(parents=True)
    shutil.copy(folder / "a.png", folder / "images" / "shoes")


@pytest.fixture
def shell(tmp_path):
    """run(kind, code) in one folder, by the Python of the tests, as a user's shell would."""
    shutil.copytree(
        ROOT / "experiments", tmp_path / "experiments",
        ignore=shutil.ignore_patterns("results", "__pycache__"),
    )  # fmt: skip
    shutil.copy(ROOT / "pyproject.toml", tmp_path)  # `launch` carries a folder that has one
    for name in ("launch", "run"):
        (tmp_path / name).symlink_to(ROOT / name)
    pictures(tmp_path)
    bin = tmp_path / ".bin"
    bin.mkdir()
    (bin / "aejax").write_text(f'#!/bin/sh\nexec {sys.executable} -m aejax "$@"\n')
    (bin / "aejax").chmod(0o755)
    (bin / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')  # a link is no venv
    (bin / "python").chmod(0o755)
    env = os.environ | {"PATH": f"{bin}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    env["XLA_FLAGS"] = "--xla_backend_optimization_level=0"

    def run(kind, code):
        command = (
            [sys.executable, "-c", BEFORE_PYTHON + code] if kind == "python" else ["sh", "-c", code]
        )
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=LONGEST
        )
        assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr
        return done.stdout

    run.folder = tmp_path
    return run


def is_run(code):
    return not any(re.search(pattern, code) for pattern in NOT_RUN)


def shorter(code):
    for long, short in SHORTER.items():
        code = code.replace(long, short)
    return code


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_a_document_runs(document, shell):
    found = commands((ROOT / document).read_text())
    if document == "README.md":
        assert len(found) > 12  # the parser reads it
    for kind, code in found:
        if not is_run(code):
            continue
        code = shorter(code + " ").strip() if kind == "shell" else code
        if "runs/a" in code:  # names of a reader's own runs
            for name in ("a", "b"):
                shutil.copytree(shell.folder / "runs" / "quickstart", shell.folder / "runs" / name)
        shell(kind, code)


@pytest.mark.nightly
def test_your_own_data_in_full_length(shell):
    """The README's "Your own data", nothing shortened."""
    text = (ROOT / "README.md").read_text()
    section = text.split("## Your own data")[1].split("\n## ")[0]
    for kind, code in commands(section):
        shell(kind, code)
    assert (shell.folder / "runs" / "mine" / "result.json").exists()


def test_the_parser_reads_what_a_reader_would_type():
    text = (
        "Words.\n\n    aejax a --b \\\n        c   # why\n    output 3\n\n"
        "```\nsh x\n```\n\n```python\nimport y\n```\n"
    )
    assert commands(text) == [("shell", "aejax a --b c"), ("shell", "sh x"), ("python", "import y")]


def test_what_is_not_run_or_shortened_is_still_printed():
    """No entry of the two tables outlives its command."""
    printed = "\n".join(c + " " for d in DOCUMENTS for _, c in commands((ROOT / d).read_text()))
    for pattern in NOT_RUN:
        assert re.search(pattern, printed, re.M), pattern
    for long in SHORTER:
        assert long in printed, long


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_name_that_is_printed_is_there(document):
    """Dotted names can be imported, files exist, experiment files know their arguments."""
    text = (ROOT / document).read_text()
    for name in set(re.findall(r"(?<![\w/.])aejax(?:\.[A-Za-z_]\w*)+", text)):
        assert importable(name), name
    folders = [ROOT, (ROOT / document).parent, ROOT / "aejax", ROOT / "experiments"]
    for path in set(re.findall(r"[`(\s]((?:[\w.-]+/)+[\w-]+\.(?:py|md|toml|sh|yaml))\b", text)):
        assert any((folder / path).exists() for folder in folders), path
    for file, arg in set(re.findall(r"(experiments/[\w/]+\.py):([\w,=-]+)", text)):
        if not arg.isdigit():
            argument_is_known(load_module(str(ROOT / file)), arg)


def importable(name):
    """Whether a dotted name is a module, or what a module has."""
    module, tail = name, []
    while module:
        try:
            found = importlib.import_module(module)
            break
        except ImportError:
            module, _, last = module.rpartition(".")
            tail.insert(0, last)
    for attribute in tail:
        if not hasattr(found, attribute):
            return False
        found = getattr(found, attribute)
    return True


def argument_is_known(module, arg):
    """An experiment's argument fits its config or its study."""
    errors = []
    for name in ("get_config", "get_study"):
        try:
            getattr(module, name, lambda arg: None)(arg)
        except UserError as e:
            errors.append(str(e))
    assert len(errors) < 2, errors
