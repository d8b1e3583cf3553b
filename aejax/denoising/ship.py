"""From the folder of a run to weights that ship: packed, with where they came from.

python -m aejax.denoising.ship runs/denoise_gray denoise_gray
"""

import json
import pathlib
import sys

from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.weights import Metadata

KEPT = ("command", "versions", "machine", "date", "git", "data", "seconds", "steps")


def ship(workdir: str, name: str, which: str = "last") -> Metadata:
    """Writes weights NAME (of the package, or a path) from the averaged weights of a run, finished
    or not.

    Returns:
      what was written beside them.

    Raises:
      UserError: no run there, or no checkpoint yet.
    """
    import jax

    import aejax
    from aejax import weights
    from aejax.config import to_json

    trained = aejax.load(workdir, which)
    folder = pathlib.Path(workdir)
    about: JsonObject = {}
    for file in ("provenance.json", "result.json"):
        if (folder / file).is_file():
            record = json.loads((folder / file).read_text())
            record = record[-1] if isinstance(record, list) else record
            about |= {k: record[k] for k in KEPT if k in record}
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps = [row for row in lines if row.get("step", 0) <= trained.step and "time" in row]
    about |= {"steps": trained.step, "wall_seconds": round(_worked([r["time"] for r in steps]))}
    meta = Metadata(
        config=json.loads(to_json(trained.config)),
        parameters=sum(v.size for v in jax.tree.leaves(trained.variables["params"])),
        storage=weights.storage(),
        extra=about,
    )
    weights.save(name, weights.packed(trained.variables), meta)
    return meta


def _worked(times: list[float], pause: float = 600.0) -> float:
    """Seconds between the first and the last log line without the pauses of stopped runs."""
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    return float(sum(g for g in gaps if 0 < g < pause))


if __name__ == "__main__":
    try:
        meta = ship(*sys.argv[1:])
        print(f"step {meta.steps}, {meta.extra['wall_seconds'] / 3600:.2f} h")
    except UserError as e:
        sys.exit(f"aejax: {e}")
