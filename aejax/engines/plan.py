"""The jobs of a study on an engine: filled files, and the commands that submit them."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence

from aejax.config import split_arg
from aejax.engines import project
from aejax.engines.engine import ENGINES, Engine
from aejax.engines.settings import SAFE, Settings, Value, defaults_file, load_settings
from aejax.engines.templates import fill, templates_folder
from aejax.errors import UserError
from aejax.study.definition import Run, Study, list_runs, load


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of `aejax launch`.

    Attributes:
      engine: a key of ENGINES.
      study: FILE[:arg].
      overrides: "--config.a.b=value" for all runs of the study.
      directory: the study's folder, as the jobs see it; "" = runs/NAME here, /runs/NAME on remote
        machines.
      data_dir: AEJAX_DATA of the jobs, as they see it; "" = that of this machine.
      units: number of jobs that share the study; 0 = the engine's default, or one per run.
      settings: "name=value" of settings.toml.
      templates: a folder of templates instead of the package's.
    """

    engine: str
    study: str
    overrides: Sequence[str] = ()
    directory: str = ""
    data_dir: str = ""
    units: int = 0
    settings: Sequence[str] = ()
    templates: str | None = None


@dataclasses.dataclass(frozen=True)
class Jobs:
    """The filled files, name -> text, and the commands that submit them, run in their folder."""

    files: dict[str, str]
    commands: list[list[str]]


def make_jobs(request: Request) -> Jobs:
    """The jobs of a study.

    Raises:
      UserError: the study, a setting or a template cannot be used.
    """
    engine = ENGINES[request.engine]
    folder = templates_folder(request.engine, request.templates)
    settings = load_settings(folder, request.settings)
    _check_required(request.engine, engine, settings, folder)
    study = load(request.study, request.overrides)
    runs = list_runs(study.runs)
    units = _count_units(request, engine, study, runs)
    name = job_name(study.name)
    directory = _study_folder(request, engine, study, name)
    data = request.data_dir or ("" if engine.remote else os.environ.get("AEJAX_DATA", ""))
    spec = request.study
    if engine.remote:
        file, arg = split_arg(request.study)
        path = project.relative_path(file, pathlib.Path.cwd(), request.engine)
        spec = path + (arg and f":{arg}")
        settings |= _remote_values(request.engine, settings, study, runs, data)
    if request.engine == "gke" and "tpu" in settings:
        settings |= slice_of(settings)
    command = [spec, *request.overrides]
    program = _program(settings)
    values = settings | {
        "name": name,
        "units": units,
        "last": units - 1,
        "study": shlex.join(command),
        "directory": shlex.quote(directory),
        "launched": directory.removeprefix("/runs/") + "/launch",
        "program": program,
        "folder": shlex.quote(str(pathlib.Path.cwd())),
        "data": shlex.quote(data) if data else "",
        "spot_flag": "--spot" if settings.get("spot") is True else "",
        "build_flag": "build" if settings.get("build") is True else "",
    }
    words = [*shlex.split(program), "study", *command]
    per_unit = [
        {
            "unit": unit,
            "command": _yaml_list([*words, "--run", f"{unit}/{units}", "--directory", directory]),
        }
        for unit in range(units)
    ]
    return Jobs(_fill_files(engine, folder, values, per_unit), _commands(engine, units))


def _check_required(name: str, engine: Engine, settings: Settings, folder: pathlib.Path) -> None:
    missing = [setting for setting in engine.required if not settings[setting]]
    if missing:
        wanted = " ".join(f"--set {setting}=..." for setting in missing)
        raise UserError(
            f"{name} needs {wanted}, here or in [{name}] of {defaults_file()}; "
            f"{folder / 'settings.toml'} explains them"
        )


def _count_units(request: Request, engine: Engine, study: Study, runs: Sequence[Run]) -> int:
    units = request.units or engine.units or len(runs)
    if request.units and request.engine == "local":
        raise UserError(
            "local has one unit, the whole study; --set workers=N trains N runs at the same time"
        )
    if not units:
        raise UserError(f'"{request.study}" is a search; give the number of its jobs: --units N')
    if study.search is None and units > len(runs):
        raise UserError(f"--units {units} is more than the {len(runs)} runs of {request.study}")
    return units


def job_name(study_name: str) -> str:
    """The study's name as a name of Kubernetes: lower case letters, digits and "-", not a digit
    first, and so short that NAME-UNIT-slice-0-0 has at most 63 characters.

    Example:
      >>> job_name("Tiny study (2)")
      'tiny-study-2'
    """
    name = re.sub(r"[^a-z0-9]+", "-", study_name.lower()).strip("-")[:40].strip("-") or "study"
    return f"aejax-{name}" if name[0].isdigit() else name


def _study_folder(request: Request, engine: Engine, study: Study, name: str) -> str:
    """The folder of the study, as the machines see it."""
    if not engine.remote:
        return str(pathlib.Path(request.directory or f"runs/{study.name}").absolute())
    directory = request.directory or f"/runs/{name}"
    if not (directory.startswith("/runs/") and SAFE.fullmatch(directory)):
        raise UserError(f"--directory {directory}: the bucket is mounted at /runs; use /runs/NAME")
    return directory


def _remote_values(
    engine: str, settings: Settings, study: Study, runs: Sequence[Run], data: str
) -> dict[str, str]:
    """The settings `requirements` (what remote machines install) and `bucket` for the templates.

    Raises:
      UserError: something that would fail on the machines, found before one is requested.
    """
    extra = settings.get("install", "tpu")
    requirements = project.requirements(pathlib.Path.cwd(), engine, extra, settings["source"])
    project.check_data(project.sources_of(study, runs), data, engine)
    bucket = project.check_bucket(settings["bucket"], engine)
    return {"requirements": requirements, "bucket": bucket}


# Matches "source ~/venv/bin/activate" and "conda activate ml".
_ACTIVATES = re.compile(r"(^|[\s;&|/])activate\b")


def _program(settings: Settings) -> str:
    """The command for aejax. "auto" = the Python that `setup` activates, else this one."""
    program = settings.get("program", "aejax")
    if program != "auto":
        return program
    if _ACTIVATES.search(settings.get("setup", "")):
        return "python -m aejax"
    return f"{shlex.quote(sys.executable)} -m aejax"


# v5e and v6e: chips of a slice -> topology, hosts, chips per host (Google's table of node pools)
_SLICES = {
    1: ("1x1", 1, 1), 4: ("2x2", 1, 4), 8: ("2x4", 1, 8), 16: ("4x4", 4, 4), 32: ("4x8", 8, 4),
    64: ("8x8", 16, 4), 128: ("8x16", 32, 4), 256: ("16x16", 64, 4),
}  # fmt: skip
_ACCELERATORS = {"v5litepod": "tpu-v5-lite-podslice", "v6e": "tpu-v6e-slice"}


def slice_of(settings: Settings) -> Settings:
    """GKE's settings accelerator, topology, hosts and chips (per host) for `tpu`, such as
    v5litepod-16. Those that the user has set are kept.

    Raises:
      UserError: an unknown kind or size of slice, and not all four are set.
    """
    names = ("accelerator", "topology", "hosts", "chips")
    if all(settings[name] for name in names):
        return {}
    kind, _, chips = settings["tpu"].partition("-")
    if kind not in _ACCELERATORS or not chips.isdigit() or int(chips) not in _SLICES:
        raise UserError(
            f"--set tpu={settings['tpu']} is not known here (v5litepod-N, v6e-N with N in "
            f"{', '.join(map(str, _SLICES))}); set {', '.join(names)} yourself"
        )
    known = (_ACCELERATORS[kind], *_SLICES[int(chips)])
    return {name: settings[name] or value for name, value in zip(names, known, strict=True)}


def _yaml_list(words: Sequence[str]) -> str:
    """The items of a YAML (and JSON) list on one line."""
    return ", ".join(map(json.dumps, words))


def _fill_files(
    engine: Engine,
    folder: pathlib.Path,
    values: Mapping[str, Value],
    per_unit: Sequence[Mapping[str, Value]],
) -> dict[str, str]:
    """{file name: text} of the filled templates in `folder`.

    Args:
      values: of all units.
      per_unit: further values of each unit.
    """

    def filled(file: str, unit: int) -> str:
        return fill((folder / file).read_text(), {**values, **per_unit[unit]})

    files = {file: filled(file, 0) for file in engine.once}
    for file in engine.each:
        if file.endswith(".yaml"):
            files[file] = "---\n".join(filled(file, unit) for unit in range(len(per_unit)))
        else:
            for unit in range(len(per_unit)):
                # A folder for each unit, because its scripts refer to each other by name.
                files[f"{unit}/{file}"] = filled(file, unit)
    return files


def _commands(engine: Engine, units: int) -> list[list[str]]:
    if any("{unit}" in word for word in engine.submit):
        return [[word.format(unit=i) for word in engine.submit] for i in range(units)]
    return [list(engine.submit)]


def xpk_commands(files: Mapping[str, str], settings: Settings) -> list[str]:
    """Commands of xpk that start the JobSets of `files`, for those who do not use kubectl."""
    commands = []
    for text in files["jobset.yaml"].split("---\n"):
        name = re.findall(r"^  name: (\S+)$", text, re.M)[0]
        command = json.loads(re.findall(r"command: (\[.*\])$", text, re.M)[0])
        commands.append(
            f"xpk workload create --cluster={settings['cluster']} --workload={name} "
            f"--tpu-type={settings['tpu']} --num-slices={settings['slices']} "
            f"--docker-image={settings['image']} --max-restarts={settings['max_restarts']} "
            f"--restart-on-exit-codes=75 --command={shlex.quote(shlex.join(command))}"
        )
    return commands
