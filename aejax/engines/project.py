"""The current folder as a project that `aejax launch` copies to other machines: the user's package,
the experiments, and the dependencies in pyproject.toml."""

import os
import pathlib
import re
import subprocess
import tarfile
import tomllib
from collections.abc import Iterable

from aejax.errors import UserError
from aejax.study.definition import Run, Study

MAX_BYTES = 200 * 2**20  # of a project, which is to hold code, not data
# Folders that are left out of a project that is not in Git.
EXCLUDED = re.compile(r"runs|launch-.*|__pycache__|.*\.egg-info|\..*")


def requirements(folder: pathlib.Path, engine: str, extra: str, source: str) -> str:
    """The arguments of `uv pip install` on the machines: aejax and the dependencies of the project.
    If `folder` is a checkout of aejax, that is what is installed.

    Args:
      extra: of aejax, "tpu" or "cuda".
      source: where pip gets aejax from, such as git+https://HOST/aejax@COMMIT.

    Raises:
      UserError: pyproject.toml is missing or cannot be read, or there is no source of aejax.
    """
    file = folder / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text()).get("project", {})
    except FileNotFoundError:
        raise UserError(
            f"no pyproject.toml in {folder}: {engine} copies the current folder to the machines "
            "and installs its dependencies there; start in the folder of your project "
            "(aejax new FOLDER creates one)"
        ) from None
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise UserError(f"{file} cannot be read: {e}") from e
    if source:
        return f'"aejax[{extra}] @ {source}" -r pyproject.toml'
    if project.get("name") == "aejax":
        return f'".[{extra}]"'
    has_source = any(
        re.match(r"aejax\b.*@", d.replace(" ", "")) for d in project.get("dependencies", ())
    )
    if not has_source:
        raise UserError(
            f"{engine} needs --set source=..., the address from which the machines install aejax, "
            "such as git+https://HOST/aejax@COMMIT"
        )
    return f'"aejax[{extra}]" -r pyproject.toml'


def relative_path(file: str, folder: pathlib.Path, engine: str) -> str:
    """The path of the study's file relative to the project, as the machines see it.

    Raises:
      UserError: it is not in the project's folder.
    """
    try:
        return pathlib.Path(file).resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        raise UserError(
            f"{file} is not in {folder}: {engine} copies the current folder to the machines; "
            "start in the folder that holds the file"
        ) from None


def check_bucket(bucket: str, engine: str) -> str:
    """The bucket in the form that the engine needs: an address for SkyPilot, else a name.

    Raises:
      UserError: the engine cannot mount it.

    Example:
      >>> check_bucket("gs://my-runs", "gke")
      'my-runs'
    """
    scheme, separator, name = bucket.rpartition("://")
    if engine == "sky":
        if not separator:
            raise UserError(
                f"--set bucket={bucket}: SkyPilot needs an address with its scheme, gs://{bucket} "
                f"or s3://{bucket}"
            )
        return bucket
    if scheme not in ("", "gs"):
        raise UserError(
            f"--set bucket={bucket}: {engine} mounts buckets of Google Cloud Storage, gs://NAME"
        )
    return name.rstrip("/")


def check_data(sources: Iterable[str], data_dir: str, engine: str) -> None:
    """Checks that the machines will find the data.

    Raises:
      UserError: a data source is in a folder of this machine, or needs a --data-dir.
    """
    remedy = "put the data into the bucket, mounted there at /runs, and give --data-dir /runs/data"
    if data_dir and not data_dir.startswith("/"):
        raise UserError(f"--data-dir {data_dir} is a folder of this machine; {remedy}")
    for source in sources:
        kind, _, path = source.partition(":")
        if kind not in ("folder", "tfds", "arrays"):
            continue
        is_absolute = kind != "tfds" and path.startswith(("/", "~"))
        if not is_absolute and not data_dir:
            raise UserError(f'data "{source}" is not on the machines of {engine}; {remedy}')
        # The image of GKE may hold further folders.
        if is_absolute and engine != "gke" and not path.startswith("/runs/"):
            raise UserError(f'data "{source}" is a folder of this machine; {remedy}')


def sources_of(study: Study, runs: Iterable[Run]) -> list[str]:
    """All values of data.source and data.eval_source in a study's runs, sorted."""
    config = study.base_config()
    keys = ("data.source", "data.eval_source")
    sources = [config.data.source, config.data.eval_source]
    sources += [run.overrides[key] for run in runs for key in keys if key in run.overrides]
    return sorted({source for source in sources if source})


def project_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of a project, relative to `folder`: all that Git tracks or would add. Outside of
    Git, all files but runs, hidden files and virtual environments."""
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
            if not EXCLUDED.fullmatch(d) and not (pathlib.Path(here) / d / "pyvenv.cfg").exists()
        )
        paths += [pathlib.Path(here, n).relative_to(folder) for n in sorted(names) if n[0] != "."]
    return paths


def file_sizes(folder: pathlib.Path, limit: int = MAX_BYTES) -> dict[pathlib.Path, int]:
    """The files of a project with their sizes in bytes.

    Raises:
      UserError: together they have more than `limit` bytes.
    """
    sizes = {path: (folder / path).stat().st_size for path in project_files(folder)}
    if sum(sizes.values()) > limit:
        largest = max(sizes, key=sizes.__getitem__)
        raise UserError(
            f"{folder} has {sum(sizes.values()) / 2**20:,.0f} MiB, too much to copy to every "
            f"machine (at most {limit / 2**20:.0f}); the largest file is {largest}: keep data in "
            "the bucket, and exclude it by .gitignore"
        )
    return sizes


def summary(folder: pathlib.Path) -> str:
    """A line for --dry-run: "12 files, 0.1 MiB: experiments, my_package, pyproject.toml"."""
    sizes = file_sizes(folder)
    names = ", ".join(sorted({path.parts[0] for path in sizes}))
    return f"{len(sizes):,} files, {sum(sizes.values()) / 2**20:.1f} MiB: {names}"


def pack(folder: pathlib.Path, archive: pathlib.Path, limit: int = MAX_BYTES) -> None:
    """Writes the files of a project to a .tar.gz.

    Raises:
      UserError: the files have more than `limit` bytes, or the archive cannot be written.
    """
    sizes = file_sizes(folder, limit)
    try:
        with tarfile.open(archive, "w:gz") as tar:
            for path in sizes:
                tar.add(folder / path, arcname=path.as_posix())
    except OSError as e:
        raise UserError(f"cannot write {archive}: {e.strerror or e}") from e
