"""A stranger's first hour, with the wheel: a project, a killed training, a run that is moved."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import sysconfig

import pytest

from tests.helpers import PROGRAMS, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    """An environment with the wheel; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    source = folder / "source"
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(".git", "_build", "__pycache__", "runs", ".venv*"),
    )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = [*pip, "wheel", ".", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run(build, cwd=source, check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    subprocess.run([*pip, "install", "--no-deps", "--target", packages, wheel], check=True)
    pathlib.Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"} | {
        k: v for k, v in os.environ.items() if k not in ("PATH", "PYTHONPATH", "AEJAX_DATA")
    }


@pytest.mark.slow
def test_the_first_hour(env, tmp_path):
    def run(*words, cwd=tmp_path, ok=0):
        done = subprocess.run(
            [*map(str, words)], cwd=cwd, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == ok, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    aejax = ("python", "-m", "aejax")
    where = run("python", "-c", "import aejax; print(aejax.__file__)")
    assert str(ROOT) not in where, "the wheel is what is tried"
    run(*aejax, "new", "faces")
    project = tmp_path / "faces"
    train = [*aejax, "train", "--config", "experiments/first.py", "--workdir", "runs/run",
             "--config.checkpoint.every=20 steps"]  # fmt: skip
    process = subprocess.Popen(
        train, cwd=project, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    checkpoints = "runs/run/checkpoints/[0-9]*"
    wait_for(lambda: any(project.glob(checkpoints)) or process.poll() is not None, 240)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (project / "runs/run/result.json").exists()
    run(*train, cwd=project)
    assert (project / "runs/run/result.json").exists()

    (project / "elsewhere").mkdir()
    (project / "runs" / "run").rename(project / "elsewhere" / "run")
    run("python", "-c", "import numpy; numpy.save('other.npy', numpy.zeros((5, 8, 8), 'uint8'))",
        cwd=project)  # fmt: skip
    shutil.copy(PROGRAMS / "first_hour_use.py", project / "use.py")
    run("python", "use.py", cwd=project)
    run(*aejax, "eval", "--workdir", "elsewhere/run", "--source", "arrays:other.npy", cwd=project)
    run(*aejax, "train", "--from", "elsewhere/run", "--workdir", "runs/tuned",
        "--config.train.length=4 steps", "--config.optim.only=^f_D/", cwd=project)  # fmt: skip
    shutil.copy(PROGRAMS / "first_hour_study.py", project / "experiments" / "both.py")
    run(*aejax, "study", "experiments/both.py:seeds", cwd=project)
    run(*aejax, "study", "experiments/both.py:folds", cwd=project)
    for name in ("seeds", "folds"):
        assert len(list((project / "runs" / name).glob("*/result.json"))) == 2
