"""Converts a run to weights that ship with the package, with their provenance.

python -m aejax.denoising.ship runs/denoise_gray denoise_gray
"""

import argparse
import json
import pathlib

from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.weights import Metadata

KEPT = ("command", "versions", "machine", "date", "git", "data", "seconds", "steps")


def ship(workdir: str, name: str, which: str = "last") -> Metadata:
    """Writes the averaged weights of a run, which need not be finished, as shipped weights.

    Args:
      workdir: folder of the run.
      name: of the weights in the package, or a path.
      which: checkpoint, as of `aejax.load`.

    Returns:
      The metadata that is written beside them.

    Raises:
      UserError: no run in that folder, or no checkpoint yet.
    """
    import jax

    import aejax
    from aejax import weights
    from aejax.config import to_json

    trained = aejax.load(workdir, which)
    folder = pathlib.Path(workdir)
    provenance: JsonObject = {}
    for file in ("provenance.json", "result.json"):
        if (folder / file).is_file():
            record = json.loads((folder / file).read_text())
            record = record[-1] if isinstance(record, list) else record
            provenance |= {k: record[k] for k in KEPT if k in record}
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps = [row for row in lines if row.get("step", 0) <= trained.step and "time" in row]
    provenance |= {
        "steps": trained.step,
        "wall_seconds": round(_active([r["time"] for r in steps])),
    }
    meta = Metadata(
        config=json.loads(to_json(trained.config)),
        parameters=sum(v.size for v in jax.tree.leaves(trained.variables["params"])),
        storage=weights.storage(),
        extra=provenance,
    )
    weights.save(name, weights.packed(trained.variables), meta)
    return meta


def _active(times: list[float], pause: float = 600.0) -> float:
    """Seconds between the first and the last log line, without gaps of `pause` seconds or more, in
    which the run was stopped."""
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    return float(sum(g for g in gaps if 0 < g < pause))


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        "python -m aejax.denoising.ship", description="Converts a run to weights of the package."
    )
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("name", help="of the weights in the package, or a path")
    parser.add_argument("--checkpoint", default="last", help="last, best or a step")
    args = parser.parse_args(argv)
    try:
        meta = ship(args.run, args.name, args.checkpoint)
    except UserError as e:
        parser.exit(2, f"aejax: {e}\n")
    print(f"step {meta.steps}, {meta.extra['wall_seconds'] / 3600:.2f} h")


if __name__ == "__main__":
    main()
