"""aejax launch ENGINE STUDY: a study as jobs of SLURM, GKE, TPU VMs, SkyPilot or this machine.

The engine schedules, retries and queues; this file only fills the plain templates of `launch/`
(which an installed package carries as `aejax/launch_templates`) and runs the engine's own command.
Unit i of N is `aejax study FILE --run i/N --directory DIR`: the same runs in the same directories
every time, continued from their checkpoints. Exit status 0 done, 75 saved and to be started again,
2 the user's mistake. Engines whose machines do not see this one's folders get the current folder
as a project (project.py).
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from typing import Any

from aejax import project
from aejax.errors import UserError
from aejax.registry import did_you_mean

PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
# What a setting may be: it is put between quotes, into comments of SLURM and into YAML as it is.
SAFE = re.compile(r"[\w@%+=:,./~\[\]&|*-]*")
SHELL = ("program", "setup")  # ... except these two, which are shell text


@dataclasses.dataclass(frozen=True)
class Engine:
    """An engine's folder in `launch/`.

    Attributes:
      help: one line.
      once: files filled once.
      each: files filled for every unit: YAML is joined into one file, scripts get its number.
      submit: the command, in the folder of the filled files; {unit} repeats it for every unit.
      units: units of work if the user does not say; 0 = one per run.
      required: settings without a default.
      remote: the machines do not see this machine's folders; the runs go to /runs.
      needs: the programs of this machine that `submit` runs.
      packs: the project is packed beside the filled files, as project.tar.gz.
    """

    help: str
    once: tuple[str, ...] = ()
    each: tuple[str, ...] = ()
    submit: tuple[str, ...] = ()
    units: int = 0
    required: tuple[str, ...] = ()
    remote: bool = False
    needs: tuple[str, ...] = ()
    packs: bool = False


def defaults_file() -> pathlib.Path:
    """Where a user's own defaults are: ~/.config/aejax/launch.toml, or in XDG_CONFIG_HOME."""
    config = os.environ.get("XDG_CONFIG_HOME") or pathlib.Path.home() / ".config"
    return pathlib.Path(config) / "aejax" / "launch.toml"


def user_defaults(engine: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The user's table [ENGINE] of launch.toml: values for names of settings.toml.

    Raises:
      UserError: the file cannot be read, or has a name or a value that cannot be.
    """
    file = defaults_file()
    try:
        tables = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise UserError(f"{file} cannot be read: {e}") from e
    for name, table in tables.items():
        if name not in ENGINES or not isinstance(table, dict):
            raise UserError(f"{file}: [{name}] is no engine{did_you_mean(name, ENGINES)}")
    own = tables.get(engine, {})
    for name, value in own.items():
        if name not in settings:
            raise UserError(
                f'{file}: {engine} has no setting "{name}"{did_you_mean(name, settings)}'
            )
        if type(value) is not type(settings[name]):
            kind = {bool: "true or false", int: "a whole number"}.get(type(settings[name]), "text")
            raise UserError(f"{file}: {engine}'s {name} is {kind}, not {value!r}")
    return own


def load_settings(folder: pathlib.Path, texts: Sequence[str]) -> dict[str, Any]:
    """settings.toml of an engine, over it the user's launch.toml, over that "name=value" of the
    command line, each of its default's type.

    Raises:
      UserError: no such setting, or a value that cannot be it.
    """
    settings = tomllib.loads((folder / "settings.toml").read_text())
    settings |= user_defaults(folder.name, settings)
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f'--set "{text}" is not of the form name=value')
        if name not in settings:
            hint = did_you_mean(name, settings)
            raise UserError(f'{folder.name} has no setting "{name}"{hint}')
        default = settings[name]
        if isinstance(default, bool):
            if value not in ("true", "false"):
                raise UserError(f"--set {name} is true or false, not {value!r}")
            settings[name] = value == "true"
        elif isinstance(default, int):
            if not re.fullmatch(r"\d+", value):
                raise UserError(f"--set {name} is a whole number, not {value!r}")
            settings[name] = int(value)
        else:
            settings[name] = value
    for name, value in settings.items():
        if "\n" in str(value) or (name not in SHELL and not SAFE.fullmatch(str(value))):
            raise UserError(f"{name}={value!r} holds characters that a template cannot take")
    return settings


def fill(text: str, values: dict[str, Any]) -> str:
    """`text` with every {{name}} replaced; a line whose value is empty is left out."""
    lines = []
    for line in text.splitlines():
        names = PLACEHOLDER.findall(line)
        for name in names:
            if name not in values:
                raise UserError(
                    f'the template asks for "{{{{{name}}}}}"{did_you_mean(name, values)}'
                )
        if any(values[name] == "" for name in names):
            continue
        lines.append(PLACEHOLDER.sub(lambda m: _text(values[m[1]]), line))
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def templates_folder(engine: str, given: str | None = None) -> pathlib.Path:
    """Where the templates of `engine` are: `given`, or those that came with the package.

    Raises:
      UserError: not there.
    """
    here = pathlib.Path(__file__).parent
    # The second is for checkouts on file systems without symbolic links.
    places = [pathlib.Path(given)] if given else [here / "launch_templates", here.parent / "launch"]
    for place in places:
        for folder in (place / engine, place):
            if folder.name == engine and (folder / "settings.toml").is_file():
                return folder
    raise UserError(f"no templates of {engine} in {places[0]}; it needs {engine}/settings.toml")


# v5e and v6e: chips of a slice -> topology, hosts, chips of a host (Google's table of node pools)
_SLICES = {
    1: ("1x1", 1, 1), 4: ("2x2", 1, 4), 8: ("2x4", 1, 8), 16: ("4x4", 4, 4), 32: ("4x8", 8, 4),
    64: ("8x8", 16, 4), 128: ("8x16", 32, 4), 256: ("16x16", 64, 4),
}  # fmt: skip
_ACCELERATORS = {"v5litepod": "tpu-v5-lite-podslice", "v6e": "tpu-v6e-slice"}


def _slice(settings: dict[str, Any]) -> None:
    """GKE wants four words for what everyone calls v5litepod-16."""
    words = ("accelerator", "topology", "hosts", "chips")
    if all(settings[w] for w in words):
        return
    kind, _, chips = settings["tpu"].partition("-")
    if kind not in _ACCELERATORS or not chips.isdigit() or int(chips) not in _SLICES:
        raise UserError(
            f"--set tpu={settings['tpu']} is not known here (v5litepod-N, v6e-N with N in "
            f"{', '.join(map(str, _SLICES))}); set {', '.join(words)} yourself"
        )
    for word, value in zip(words, (_ACCELERATORS[kind], *_SLICES[int(chips)]), strict=True):
        settings[word] = settings[word] or value


# "source ~/venv/bin/activate", "conda activate ml"
_ACTIVATES = re.compile(r"(^|[\s;&|/])activate\b")


def _program(settings: dict[str, Any]) -> str:
    """How aejax is called: "auto" is the Python that `setup` activates, else this one."""
    program = settings.get("program", "aejax")
    if program != "auto":
        return program
    if _ACTIVATES.search(settings.get("setup", "")):
        return "python -m aejax"
    return f"{shlex.quote(sys.executable)} -m aejax"


def _carried(
    engine_name: str, settings: dict[str, Any], study: Any, runs: Sequence[Any], data: str
) -> dict[str, str]:
    """Values of a project that goes to other machines, and `bucket` as the engine wants it.

    Raises:
      UserError: what could not work there, said before a machine is asked for.
    """
    where = pathlib.Path.cwd()
    extra = settings.get("install", "tpu")
    asked = project.requirements(where, engine_name, extra, settings["source"])
    project.check_data(project.sources_of(study, runs), data, engine_name)
    return {
        "requirements": asked,
        "bucket": project.check_bucket(settings["bucket"], engine_name),
    }


def plan(engine_name: str, args: argparse.Namespace) -> tuple[dict[str, str], list[list[str]]]:
    """({file name: its filled text}, commands that submit them).

    Raises:
      UserError: the study, a setting or a template cannot be used.
    """
    from aejax import config
    from aejax import study as studies

    engine = ENGINES[engine_name]
    folder = templates_folder(engine_name, args.templates)
    settings = load_settings(folder, args.set)
    missing = [name for name in engine.required if not settings[name]]
    if missing:
        wanted = " ".join(f"--set {name}=..." for name in missing)
        raise UserError(
            f"{engine_name} needs {wanted}, or [{engine_name}] of {defaults_file()}; see "
            f"{folder / 'settings.toml'}"
        )

    study = studies.load(args.study, args.overrides)
    runs = studies.list_runs(study.runs)
    units = args.units or engine.units or len(runs)
    if args.units and engine_name == "local":
        raise UserError("local has one unit, the whole study; --set workers=N shares it")
    if not units:
        raise UserError(f'"{args.study}" is a search; say how many units share it: --units N')
    if study.search is None and units > len(runs):
        raise UserError(f"--units {units} is more than the {len(runs)} runs of {args.study}")

    # Kubernetes: lower case, digits and "-", and at most 63 with "-UNIT-slice-0-0" behind it.
    name = re.sub(r"[^a-z0-9]+", "-", study.name.lower()).strip("-")[:40].strip("-") or "study"
    name = f"aejax-{name}" if name[0].isdigit() else name
    where = pathlib.Path.cwd()
    directory = args.directory or (f"/runs/{name}" if engine.remote else f"runs/{study.name}")
    if engine.remote and not (directory.startswith("/runs/") and SAFE.fullmatch(directory)):
        raise UserError(f"--directory {directory}: the bucket is mounted at /runs; use /runs/NAME")
    if not engine.remote:
        directory = str(pathlib.Path(directory).absolute())
    data = args.data_dir or ("" if engine.remote else os.environ.get("AEJAX_DATA", ""))
    file, arg = config.split_arg(args.study)
    spec = args.study
    if engine.remote:
        spec = project.inside(file, where, engine_name) + (f":{arg}" if arg else "")
        settings |= _carried(engine_name, settings, study, runs, data)
    words = [spec, *args.overrides]
    program = _program(settings)
    if "tpu" in settings and engine_name == "gke":
        _slice(settings)
    values = settings | {
        "name": name,
        "units": units,
        "last": units - 1,
        "study": shlex.join(words),
        "directory": shlex.quote(directory),
        "launched": directory.removeprefix("/runs/") + "/launch",
        "program": program,
        "folder": shlex.quote(str(where)),
        "data": shlex.quote(data) if data else "",
        "spot_flag": "--spot" if settings.get("spot") is True else "",
        "build_flag": "build" if settings.get("build") is True else "",
    }

    def filled(file: str, unit: int) -> str:
        command = [*shlex.split(program), "study", *words, "--run", f"{unit}/{units}"]
        command = ", ".join(json.dumps(w) for w in (*command, "--directory", directory))
        text = (folder / file).read_text()
        return fill(text, values | {"unit": unit, "command": command})

    files = {file: filled(file, 0) for file in engine.once}
    for file in engine.each:
        stem, suffix = os.path.splitext(file)
        if suffix == ".yaml":
            files[file] = "---\n".join(filled(file, unit) for unit in range(units))
        else:
            for unit in range(units):
                # A unit's folder of its own: its scripts name each other.
                files[f"{unit}/{file}"] = filled(file, unit)
    commands = [list(engine.submit)]
    if any("{unit}" in word for word in engine.submit):
        commands = [[w.format(unit=i) for w in engine.submit] for i in range(units)]
    return files, commands


def xpk_commands(files: dict[str, str], settings: dict[str, Any]) -> list[str]:
    """The same JobSets in the words of xpk, for those who use it."""
    found = []
    for text in files["jobset.yaml"].split("---\n"):
        name = re.search(r"^  name: (\S+)$", text, re.M)[1]
        command = json.loads(re.search(r"command: (\[.*\])$", text, re.M)[1])
        found.append(
            f"xpk workload create --cluster={settings['cluster']} --workload={name} "
            f"--tpu-type={settings['tpu']} --num-slices={settings['slices']} "
            f"--docker-image={settings['image']} --max-restarts={settings['max_restarts']} "
            f"--restart-on-exit-codes=75 --command={shlex.quote(shlex.join(command))}"
        )
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `aejax launch`."""
    engines = "; ".join(f"{name}: {engine.help}" for name, engine in ENGINES.items())
    parser.add_argument("engine", help=engines)
    parser.add_argument("study", help="FILE[:arg] with get_study()")
    parser.add_argument("--directory", help="of the study; default runs/NAME, remote /runs/NAME")
    parser.add_argument("--data-dir", help="AEJAX_DATA of the jobs, as they see it")
    parser.add_argument("--units", type=int, default=0, help="parts; default one per run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a value of settings.toml"
    )
    parser.add_argument("--templates", help="folder to take instead of the package's")
    parser.add_argument("--out", help="folder of the filled files; default launch-NAME-ENGINE")
    parser.add_argument("--dry-run", action="store_true", help="print all, write and start nothing")


def run(args: argparse.Namespace) -> int:
    """Fills the templates and submits them; the exit status of the engine's command."""
    if args.engine not in ENGINES:
        raise UserError(f'no engine "{args.engine}"{did_you_mean(args.engine, ENGINES)}')
    engine = ENGINES[args.engine]
    args.overrides = list(getattr(args, "overrides", ()))
    files, commands = plan(args.engine, args)
    name = pathlib.PurePath(args.study.partition(":")[0]).stem
    out = pathlib.Path(args.out or f"launch-{name}-{args.engine}")
    if args.dry_run:
        for file, text in files.items():
            print(f"# ---- {out / file}\n{text}")
        if engine.packs:
            print(f"# ---- {out / 'project.tar.gz'}: {project.described(pathlib.Path.cwd())}\n")
        print(f"# ---- would run in {out}")
        for command in commands:
            print(shlex.join(command))
    if args.engine == "gke":
        folder = templates_folder("gke", args.templates)
        print("# the same by xpk:", *xpk_commands(files, load_settings(folder, args.set)), sep="\n")
    if args.dry_run:
        return 0
    for file, text in files.items():
        try:
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (out / file).write_text(text)
        except OSError as e:
            raise UserError(f"cannot write {out / file}: {e.strerror or e}") from e
    if engine.packs:
        project.pack(pathlib.Path.cwd(), out / "project.tar.gz")
    missing = [name for name in engine.needs if shutil.which(name) is None]
    if missing:
        line = " && ".join(map(shlex.join, commands[:3])) + (" && ..." if commands[3:] else "")
        raise UserError(
            f'no "{missing[0]}" on this machine; the files are in {out}, submit them where it '
            f"is: cd {out} && {line}"
        )
    return _submit(out, commands)


def _submit(out: pathlib.Path, commands: list[list[str]]) -> int:
    """Runs the commands at the same time; the worst exit status."""
    running = []
    try:
        for command in commands:
            running.append(subprocess.Popen(command, cwd=out))
        return max(process.wait() for process in running)
    except KeyboardInterrupt:  # they got it too: let them save
        return max(process.wait() for process in running)


ENGINES = {
    "local": Engine(
        "processes of this machine", once=("run.sh",), submit=("bash", "run.sh"), units=1
    ),
    "slurm": Engine(
        "one array job",
        once=("study.sbatch",),
        submit=("sbatch", "study.sbatch"),
        needs=("sbatch",),
    ),
    "gke": Engine(
        "JobSets in a Kueue queue",
        once=("Dockerfile", "submit.sh"),
        each=("jobset.yaml",),
        submit=("bash", "submit.sh"),
        required=("image", "bucket"),
        remote=True,
        needs=("docker", "kubectl"),
        packs=True,
    ),
    "tpu_vm": Engine(
        "TPU slices by queued resources",
        each=("startup.sh", "babysit.sh"),
        submit=("bash", "{unit}/babysit.sh"),
        units=1,
        required=("project", "zone", "bucket", "source"),
        remote=True,
        needs=("gcloud",),
        packs=True,
    ),
    "sky": Engine(
        "SkyPilot managed jobs",
        once=("task.yaml", "submit.sh"),
        submit=("bash", "submit.sh"),
        required=("bucket",),
        remote=True,
        needs=("sky",),
    ),
}
