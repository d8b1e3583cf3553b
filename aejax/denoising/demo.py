"""A noisy photograph, restored by the shipped weights and by filters: a section of the quickstart.

Two kinds of noise, since they need different remedies: white noise, and the noise of a camera.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

FILTERS = ("gaussian", "median", "wavelet", "tv", "nlm")
AGAINST_CAMERAS = ("tv", "nlm")  # the filters that are best there
CAMERA_RMS = 8.0  # of 255


def restored_photo(
    directory: str | pathlib.Path,
    sigma: float = 25.0,
    filters: Sequence[str] = FILTERS,
    against_cameras: Sequence[str] = AGAINST_CAMERAS,
    model: str = "auto",
) -> dict[str, str]:
    """A section for a study's report: {"title", "text", "picture": file in `directory`}.

    The photograph is scikit-image's astronaut (256x256 of it, in colour), the white noise that of
    the protocol, the camera's noise simulated by the corruption `camera`. Filters are told sigma,
    or for the camera the level that is best on this very picture; ours is told nothing.
    """
    from skimage.data import astronaut

    from aejax.denoising.api import restore, suited_to
    from aejax.denoising.baselines import baseline, method
    from aejax.denoising.pairs import best_level
    from aejax.denoising.protocol import corrupted_image, noisy_image, psnr, rounded
    from aejax.pictures import rows_sheet, save

    x = np.ascontiguousarray(astronaut()[0:256, 96:352])
    white = noisy_image(x, sigma, 0)
    ours = restore(white, model=model)
    weights = suited_to(white, model)
    first = {"clean": x, "noisy": rounded(white)}
    first |= {name: rounded(baseline(name)(white, sigma)) for name in filters}
    first["aejax (blind)"] = rounded(ours.image)

    shot = rounded(corrupted_image(x, "camera", CAMERA_RMS, 0))
    second = {"noisy": shot}
    noisy = shot.astype(np.float32) / 255
    for name in against_cameras:
        level = best_level([(shot, x)], method(name))
        second[f"{name} told {level:g}"] = rounded(baseline(name)(noisy, level))
    second["aejax (blind)"] = rounded(restore(noisy, model=model).image)

    shown = list(first.values())
    rows = [shown[i : i + 4] for i in range(0, len(shown), 4)]
    path = pathlib.Path(directory) / "denoise.png"
    lines = [*(("", "", images) for images in rows), None, ("", "", list(second.values()))]
    save(path, rows_sheet(lines))

    def measured(pictures: dict[str, np.ndarray]) -> str:
        scores = {name: psnr(x, y) for name, y in pictures.items() if name != "clean"}
        others = [name for name in scores if name not in ("noisy", "aejax (blind)")]
        best = max(others, key=lambda name: scores[name])
        each = ", ".join(f"{name} {value:.2f} dB" for name, value in scores.items())
        gain = scores["aejax (blind)"] - scores[best]
        return f"{each}: {gain:+.2f} dB against the best filter, {best}."

    return {
        "title": "A noisy photograph, restored",
        "text": (
            f"White noise of sigma {sigma:g}, which the filters are told and the network "
            f"({weights}) is not; it estimates {ours.sigma:.1f}. From left to right, "
            f"then down: {', '.join(first)}. {measured(first)} "
            f"Last row: simulated noise of a camera, {CAMERA_RMS:g} rms (raw noise, demosaicing, "
            f"colour matrix, tone curve, JPEG), where the filters are told the level that is best "
            f"on this very picture: {', '.join(second)}. {measured(second)}"
        ),
        "picture": path.name,
    }
