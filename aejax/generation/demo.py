"""Pictures that never were, drawn by the shipped generators: a row of the quickstart."""

import json
import pathlib
from typing import Any

RIVALS = pathlib.Path(__file__).parent / "rivals"


def rivals() -> dict[str, dict[str, Any]]:
    """{name: {"pictures": uint8 [12, 28, 28, 1], "fd": ...}} of what was trained on Fashion-MNIST
    to be compared with: kept as pictures, not as weights. How they were made: rivals.json."""
    import numpy as np

    told = json.loads(RIVALS.with_suffix(".json").read_text())["models"]
    with np.load(RIVALS.with_suffix(".npz")) as kept:
        return {name: {"pictures": kept[name], **about} for name, about in told.items()}


def drawn_pictures(directory: str | pathlib.Path, n: int = 12) -> dict[str, str]:
    """A section for a study's report: {"title", "text", "picture": file in `directory`}.

    n pictures of each generator, and under them what a GAN and a plain VAE drew. The distances were
    measured when they were made (on 10,000 samples, against the test split, which is not in the
    package), not anew.
    """
    from aejax import weights
    from aejax.generation.generator import load_generator, names
    from aejax.pictures import rows_sheet, save

    rows: list[Any] = []
    for name in names():
        score = weights.provenance(name).get("score")
        note = f"FD {score['fd']:.2f}, real {score['fd_floor']:.2f}" if score else ""
        rows.append((name, note, load_generator(name).sample(n, seed=0)))
    rows.append(None)
    others = rivals()
    rows += [(name, f"FD {r['fd']:.2f}", r["pictures"][:n]) for name, r in others.items()]
    path = pathlib.Path(directory) / "generate.png"
    save(path, rows_sheet(rows, side=84))
    return {
        "title": "Pictures that never were",
        "text": (
            f"Draws of {' and '.join(names())}: noise, turned into a code h by the prior, and into "
            "a picture by f_D. Under them what others draw that were trained on fashion-mnist: "
            f"{' and '.join(others)}. FD: the distance of 10,000 draws from the 10,000 pictures of "
            "the test split, as measured when they were made, and of as many real pictures."
        ),
        "picture": path.name,
    }
