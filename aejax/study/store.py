"""The files of a study's folder.

manifest.json       the study's settings, and its runs in order
ID/result.json      the result of a finished run
ID/failed.json      why a run failed: {"error", "time", "date", "traceback"}
ID/pruned.json      a search ended the run early: {"date", "why"}
sections.json       sections that the study's `finish` adds to the report
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from aejax import files
from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.study.definition import Run, Study, to_plain


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file; None if it is missing or no valid JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def write_json(path: pathlib.Path, value: object) -> None:
    """Writes a JSON file atomically: readers see the old content or the new one."""
    files.write_atomically(path, json.dumps(value, indent=1, default=to_plain) + "\n")


def read_result(workdir: pathlib.Path) -> JsonObject | None:
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
    """Whether the run has ended in any way: it is done, pruned or failed."""
    return (workdir / "result.json").exists() or is_pruned(workdir) or is_failed(workdir)


def write_manifest(study: Study, directory: pathlib.Path, runs: Sequence[Run]) -> None:
    """Writes manifest.json, unless it has this content already."""
    manifest = study.settings() | {"runs": [dataclasses.asdict(run) for run in runs]}
    if read_json(directory / "manifest.json") != manifest:
        write_json(directory / "manifest.json", manifest)


@dataclasses.dataclass
class Manifest:
    """The content of manifest.json.

    Attributes:
      settings: as `Study.settings` gives them.
      runs: every run of the study, in order.
    """

    settings: JsonObject
    runs: list[Run]


def read_manifest(directory: pathlib.Path) -> Manifest | None:
    """The study's manifest, settings under their current names; None if there is no manifest."""
    settings = read_json(directory / "manifest.json")
    if not settings:
        return None
    if "over" in settings:  # the name in aejax 0.1
        settings["repeats"] = settings.pop("over")
    search = settings.get("search")
    if search and "better" in search:  # +1 or -1 in aejax 0.1
        search["larger_is_better"] = search.pop("better") > 0
    runs = [
        Run(entry.get("index", i), entry["id"], entry["overrides"], entry["labels"])
        for i, entry in enumerate(settings.pop("runs", []))
    ]
    return Manifest(settings, runs)


def load_results(directory: str | pathlib.Path) -> list[JsonObject]:
    """Results of the finished runs in the manifest's order, with id, overrides, labels and folder.

    Raises:
      UserError: `directory` holds no study.
    """
    directory = pathlib.Path(directory)
    manifest = read_manifest(directory)
    if not manifest:
        raise UserError(f"{directory} holds no study (no manifest.json)")
    results = []
    for run in manifest.runs:
        folder = directory / run.id
        result = read_result(folder)
        if result is not None:
            identity = {"id": run.id, "overrides": run.overrides, "labels": run.labels}
            results.append(result | identity | {"directory": str(folder)})
    return results
