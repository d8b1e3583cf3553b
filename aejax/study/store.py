"""The files of a study's folder.

manifest.json       the study's settings, and its runs in order
ID/result.json      the run is done
ID/failed.json      it failed: {"error", "time", "date", "traceback"}
ID/pruned.json      a search ended it early: {"date", "why"}
sections.json       sections that the study's `finish` adds to the report
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from aejax import files
from aejax.errors import UserError
from aejax.study.definition import Run, Study, to_plain


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file; None if it is missing or not whole."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def write_json(path: pathlib.Path, value: Any) -> None:
    """Replaces the file as a whole: readers never see a part of it."""
    files.write_atomically(path, json.dumps(value, indent=1, default=to_plain) + "\n")


def read_result(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The result of a finished run, else None."""
    result = read_json(workdir / "result.json")
    return result if isinstance(result, dict) and "metrics" in result else None


def is_pruned(workdir: pathlib.Path) -> bool:
    """Whether a search ended the run early."""
    return (workdir / "pruned.json").exists()


def is_failed(workdir: pathlib.Path) -> bool:
    """Whether the run failed when it was last tried."""
    return (workdir / "failed.json").exists()


def is_settled(workdir: pathlib.Path) -> bool:
    """Whether a search expects nothing more of the run: it is done, pruned or failed."""
    return (workdir / "result.json").exists() or is_pruned(workdir) or is_failed(workdir)


def write_manifest(study: Study, directory: pathlib.Path, runs: Sequence[Run]) -> None:
    """Writes manifest.json if it would change."""
    manifest = study.settings() | {"runs": [dataclasses.asdict(run) for run in runs]}
    if read_json(directory / "manifest.json") != manifest:
        write_json(directory / "manifest.json", manifest)


def read_manifest(directory: pathlib.Path) -> dict[str, Any] | None:
    """manifest.json with today's names of settings; None if there is none."""
    manifest = read_json(directory / "manifest.json")
    if not manifest:
        return None
    if "over" in manifest:  # the name in aejax 0.1
        manifest["repeats"] = manifest.pop("over")
    search = manifest.get("search")
    if search and "better" in search:  # +1 or -1 in aejax 0.1
        search["larger_is_better"] = search.pop("better") > 0
    return manifest


def load_results(directory: str | pathlib.Path) -> list[dict[str, Any]]:
    """Results of the finished runs in the manifest's order, with id, overrides, labels and folder.

    Raises:
      UserError: `directory` holds no study.
    """
    directory = pathlib.Path(directory)
    manifest = read_manifest(directory)
    if not manifest:
        raise UserError(f"{directory} holds no study (no manifest.json)")
    results = []
    for entry in manifest["runs"]:
        result = read_result(directory / entry["id"])
        if result is not None:
            identity = {key: entry[key] for key in ("id", "overrides", "labels")}
            results.append(result | identity | {"directory": str(directory / entry["id"])})
    return results
