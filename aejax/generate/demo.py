"""Pictures that never were, drawn by the shipped generators: a row of the quickstart."""

import pathlib


def drawn_pictures(directory: str | pathlib.Path, n: int = 24) -> dict[str, str]:
    """A section for a study's report: {"title", "text", "picture": file in `directory`}.

    n pictures of each generator. The distances are those that were measured when it was shipped (on
    10,000 samples, against the test split, which is not in the package), not anew.
    """
    import numpy as np

    from aejax import weights
    from aejax.generate.generator import load_generator, names
    from aejax.pictures import grid, save

    pictures, words = [], []
    for name in names():
        pictures += list(load_generator(name).sample(n, seed=0))
        score = weights.provenance(name).get("score")
        if score:
            n_samples, n_real = (f"{score[k]:,}" for k in ("n", "n_real"))
            words.append(
                f"{name}: FD {score['fd']:.2f} ({n_samples} samples against the {n_real} of "
                f"{score['reference']}; as many real pictures: {score['fd_floor']:.3f})"
            )
    path = pathlib.Path(directory) / "generate.png"
    save(path, grid(np.stack(pictures), columns=12))
    return {
        "title": "Pictures that never were",
        "text": (
            f"Each {n} draws of {' and '.join(names())}: noise, turned into a code h by the prior, "
            f"and into a picture by f_D. As measured when they were made: {'; '.join(words)}."
        ),
        "picture": path.name,
    }
