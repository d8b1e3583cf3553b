"""One noisy photograph, restored by the shipped weights and by filters: a row of the quickstart."""

import pathlib
from collections.abc import Sequence

import numpy as np

FILTERS = ("gaussian", "median", "wavelet", "tv", "nlm")


def restored_photo(
    directory: str | pathlib.Path,
    sigma: float = 25.0,
    filters: Sequence[str] = FILTERS,
    model: str = "auto",
) -> dict[str, str]:
    """A section for a study's report: {"title", "text", "picture": file in `directory`}.

    The photograph is scikit-image's astronaut (256x256 of it, in colour), the noise that of the
    protocol; the filters are told sigma, ours is not.
    """
    from skimage.data import astronaut

    from aejax.denoising.api import network_for, restore
    from aejax.denoising.baselines import baseline
    from aejax.denoising.protocol import noisy_image, psnr, rounded
    from aejax.pictures import rows_sheet, save

    x = np.ascontiguousarray(astronaut()[0:256, 96:352])
    noisy = noisy_image(x, sigma, 0)
    network, ours = network_for(3, model), restore(noisy, model=model)
    pictures = {"clean": x, "noisy": rounded(noisy)}
    pictures |= {name: rounded(baseline(name)(noisy, sigma)) for name in filters}
    pictures["aejax (blind)"] = rounded(ours.image)
    shown = list(pictures.values())
    rows = [shown[i : i + 4] for i in range(0, len(shown), 4)]
    path = pathlib.Path(directory) / "denoise.png"
    save(path, rows_sheet([("", "", images) for images in rows]))
    scores = {name: psnr(x, y) for name, y in pictures.items() if name != "clean"}
    best = max(filters, key=lambda name: scores[name])
    lines = ", ".join(f"{name} {value:.2f} dB" for name, value in scores.items())
    return {
        "title": "A noisy photograph, restored",
        "text": (
            f"White noise of sigma {sigma:g}, which the filters are told and the network "
            f"({network.name}) is not; it estimates {ours.sigma:.1f}. From left to right, "
            f"then down: {', '.join(pictures)}. {lines}: "
            f"{scores['aejax (blind)'] - scores[best]:+.2f} dB against the best filter, {best}."
        ),
        "picture": path.name,
    }
