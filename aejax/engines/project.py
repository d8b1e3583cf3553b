"""The current folder as a project that `aejax launch` carries to other machines: the package of the
user's own parts, the experiments, and what pyproject.toml asks for."""

import os
import pathlib
import re
import subprocess
import tarfile
import tomllib
from collections.abc import Iterable

from aejax.errors import UserError
from aejax.study.definition import Run, Study

LIMIT = 200 * 2**20  # bytes of a packed project: code, not data
LEFT_OUT = re.compile(r"runs|launch-.*|__pycache__|.*\.egg-info|\..*")  # names, outside of Git


def requirements(folder: pathlib.Path, engine: str, extra: str, source: str) -> str:
    """What `uv pip install` is given on the machines: aejax with its `extra`, from `source`, and
    the dependencies of pyproject.toml. A checkout of aejax itself is its own source.

    Raises:
      UserError: no pyproject.toml in `folder`, or one that cannot be read.
    """
    file = folder / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text()).get("project", {})
    except FileNotFoundError:
        raise UserError(
            f"no pyproject.toml in {folder}: {engine} carries the current folder to the machines "
            "and installs its dependencies there; start from the folder of your project "
            "(aejax new FOLDER writes one)"
        ) from None
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise UserError(f"{file} cannot be read: {e}") from e
    if source:
        return f'"aejax[{extra}] @ {source}" -r pyproject.toml'
    if project.get("name") == "aejax":
        return f'".[{extra}]"'
    names_a_place = any(
        re.match(r"aejax\b.*@", d.replace(" ", "")) for d in project.get("dependencies", ())
    )
    if not names_a_place:
        raise UserError(
            f"{engine} needs --set source=..., from where the machines install aejax: "
            "git+https://HOST/aejax@COMMIT"
        )
    return f'"aejax[{extra}]" -r pyproject.toml'


def inside(file: str, folder: pathlib.Path, engine: str) -> str:
    """The study's file relative to the project, as the machines see it.

    Raises:
      UserError: it lies elsewhere.
    """
    try:
        return pathlib.Path(file).resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        raise UserError(
            f"{file} is not in {folder}: {engine} carries the current folder to the machines; "
            "start from the folder that holds it"
        ) from None


def check_bucket(bucket: str, engine: str) -> str:
    """The bucket as the engine wants it: SkyPilot an address, Google's a name.

    Raises:
      UserError: it is not.
    """
    scheme, separator, name = bucket.rpartition("://")
    if engine == "sky":
        if not separator:
            raise UserError(
                f"--set bucket={bucket}: SkyPilot wants an address with its scheme, gs://{bucket} "
                f"or s3://{bucket}"
            )
        return bucket
    if scheme not in ("", "gs"):
        raise UserError(f"--set bucket={bucket}: {engine} mounts a bucket of Google's, gs://NAME")
    return name.rstrip("/")


def check_data(sources: Iterable[str], data_dir: str, engine: str) -> None:
    """That the machines will find the data.

    Raises:
      UserError: a set that lies in this machine's folders, or in a data folder nobody named.
    """
    remedy = "put the data into the bucket, mounted there at /runs, and give --data-dir /runs/data"
    if data_dir and not data_dir.startswith("/"):
        raise UserError(f"--data-dir {data_dir} is a folder of this machine; {remedy}")
    for source in sources:
        kind, _, path = source.partition(":")
        if kind not in ("folder", "tfds", "arrays"):
            continue
        absolute = kind != "tfds" and path.startswith(("/", "~"))
        if not absolute and not data_dir:
            raise UserError(f'data "{source}" is not on the machines of {engine}; {remedy}')
        if absolute and engine != "gke" and not path.startswith("/runs/"):  # an image may hold more
            raise UserError(f'data "{source}" is a folder of this machine; {remedy}')


def sources_of(study: Study, runs: Iterable[Run]) -> list[str]:
    """Every data.source and data.eval_source of a study's runs."""
    config = study.base_config()
    keys = ("data.source", "data.eval_source")
    sources = [config.data.source, config.data.eval_source]
    sources += [run.overrides[key] for run in runs for key in keys if key in run.overrides]
    return sorted({source for source in sources if source})


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """What a project consists of: all that Git has or would add; outside of Git all but runs,
    hidden files and environments. Relative to `folder`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
        names = sorted({os.fsdecode(name) for name in listed.split(b"\0") if name})
        return [pathlib.Path(n) for n in names if (folder / n).is_file()]
    except (OSError, subprocess.CalledProcessError):
        pass
    paths = []
    for here, inner, names in os.walk(folder):
        inner[:] = sorted(
            d
            for d in inner
            if not LEFT_OUT.fullmatch(d) and not (pathlib.Path(here) / d / "pyvenv.cfg").exists()
        )
        paths += [pathlib.Path(here, n).relative_to(folder) for n in sorted(names) if n[0] != "."]
    return paths


def measured(folder: pathlib.Path, limit: int = LIMIT) -> dict[pathlib.Path, int]:
    """The files of a project with their bytes, at most `limit` in all.

    Raises:
      UserError: together they are too large to be code alone.
    """
    sizes = {path: (folder / path).stat().st_size for path in files(folder)}
    if sum(sizes.values()) > limit:
        largest = max(sizes, key=sizes.__getitem__)
        raise UserError(
            f"{folder} has {sum(sizes.values()) / 2**20:,.0f} MiB, too much to carry to every "
            f"machine (at most {limit / 2**20:.0f}); the largest file is {largest}: keep data in "
            "the bucket, and leave them out by .gitignore"
        )
    return sizes


def described(folder: pathlib.Path) -> str:
    """ "12 files, 0.1 MiB: experiments, my_package, pyproject.toml"."""
    sizes = measured(folder)
    names = ", ".join(sorted({path.parts[0] for path in sizes}))
    return f"{len(sizes):,} files, {sum(sizes.values()) / 2**20:.1f} MiB: {names}"


def pack(folder: pathlib.Path, archive: pathlib.Path, limit: int = LIMIT) -> None:
    """Writes the project, of at most `limit` bytes, as a .tar.gz.

    Raises:
      UserError: it is too large to be code alone, or cannot be written.
    """
    chosen = measured(folder, limit)
    try:
        with tarfile.open(archive, "w:gz") as tar:
            for path in chosen:
                tar.add(folder / path, arcname=path.as_posix())
    except OSError as e:
        raise UserError(f"cannot write {archive}: {e.strerror or e}") from e
