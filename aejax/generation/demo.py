"""A section of the quickstart's report: samples of the shipped generators."""

import json
import pathlib
from typing import Any

RIVALS = pathlib.Path(__file__).parent / "rivals"


def rivals() -> dict[str, dict[str, Any]]:
    """Samples of other models of Fashion-MNIST for comparison, {name: {"pictures": uint8 [12, 28,
    28, 1], "fd": Frechet distance, ...}}. Pictures are stored, not weights; rivals.json has their
    provenance."""
    import numpy as np

    models = json.loads(RIVALS.with_suffix(".json").read_text())["models"]
    with np.load(RIVALS.with_suffix(".npz")) as pictures:
        return {name: {"pictures": pictures[name], **facts} for name, facts in models.items()}


def drawn_pictures(directory: str | pathlib.Path, n: int = 12) -> dict[str, str]:
    """A section for a study's report: {"title", "text", "picture": file in `directory`}.

    It shows n samples of each generator, and below them those of a GAN and a plain VAE. The Frechet
    distances were measured when the models were trained, with 10,000 samples against the test
    split, which is not in the package.
    """
    from aejax import weights
    from aejax.generation.generator import load_generator, names
    from aejax.pictures import rows_sheet, save

    rows: list[Any] = []
    for name in names():
        score = weights.metadata(name).score
        note = f"FD {score['fd']:.2f}, real {score['fd_floor']:.2f}" if score else ""
        rows.append((name, note, load_generator(name).sample(n, seed=0)))
    rows.append(None)
    others = rivals()
    rows += [(name, f"FD {r['fd']:.2f}", r["pictures"][:n]) for name, r in others.items()]
    path = pathlib.Path(directory) / "generate.png"
    save(path, rows_sheet(rows, side=84))
    return {
        "title": "New pictures",
        "text": (
            f"Samples of {' and '.join(names())}: the prior turns noise into a code h, f_D turns h "
            "into a picture. Below them samples of other models trained on fashion-mnist: "
            f"{' and '.join(others)}. FD: the Frechet distance of 10,000 samples from the 10,000 "
            "pictures of the test split; real: that of as many training pictures (both measured "
            "when the models were trained)."
        ),
        "picture": path.name,
    }
