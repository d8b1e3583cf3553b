"""A section of the quickstart's report: a photograph denoised by the shipped weights and by
filters.

It shows white noise and camera noise, because they need different weights.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

FILTERS = ("gaussian", "median", "wavelet", "tv", "nlm")
AGAINST_CAMERAS = ("tv", "nlm")  # the best filters on camera noise
CAMERA_RMS = 8.0  # level of the simulated camera noise (of 255)


def restored_photo(
    directory: str | pathlib.Path,
    sigma: float = 25.0,
    filters: Sequence[str] = FILTERS,
    against_cameras: Sequence[str] = AGAINST_CAMERAS,
    model: str = "auto",
) -> dict[str, str]:
    """A section for a study's report: {"title", "text", "picture": file in `directory`}.

    The photograph is a 256x256 crop of scikit-image's astronaut in colour. White noise is that of
    `protocol`, camera noise that of the corruption `camera`. The filters are given the true sigma,
    or for camera noise the level with the best PSNR on this picture; our network is blind.

    Args:
      sigma: of the white noise, 0 to 255.
      filters, against_cameras: names of baselines for the two kinds of noise.
      model: as of `denoise`.
    """
    from skimage.data import astronaut

    from aejax.denoising.api import restore, weights_for_image
    from aejax.denoising.baselines import baseline, method
    from aejax.denoising.pairs import best_level
    from aejax.denoising.protocol import corrupted_image, noisy_image, psnr, rounded
    from aejax.pictures import rows_sheet, save

    x = np.ascontiguousarray(astronaut()[0:256, 96:352])
    white = noisy_image(x, sigma, 0)
    ours = restore(white, model=model)
    weights = weights_for_image(white, model)
    of_white = {"clean": x, "noisy": rounded(white)}
    of_white |= {name: rounded(baseline(name)(white, sigma)) for name in filters}
    of_white["aejax (blind)"] = rounded(ours.image)

    camera = rounded(corrupted_image(x, "camera", CAMERA_RMS, 0))
    of_camera = {"noisy": camera}
    noisy = camera.astype(np.float32) / 255
    for name in against_cameras:
        level = best_level([(camera, x)], method(name))
        of_camera[f"{name}, sigma {level:g}"] = rounded(baseline(name)(noisy, level))
    of_camera["aejax (blind)"] = rounded(restore(noisy, model=model).image)

    images = list(of_white.values())
    rows = [images[i : i + 4] for i in range(0, len(images), 4)]
    path = pathlib.Path(directory) / "denoise.png"
    lines = [*(("", "", row) for row in rows), None, ("", "", list(of_camera.values()))]
    save(path, rows_sheet(lines))

    def scores_text(pictures: dict[str, np.ndarray]) -> str:
        scores = {name: psnr(x, y) for name, y in pictures.items() if name != "clean"}
        others = [name for name in scores if name not in ("noisy", "aejax (blind)")]
        best = max(others, key=lambda name: scores[name])
        each = ", ".join(f"{name} {value:.2f} dB" for name, value in scores.items())
        gain = scores["aejax (blind)"] - scores[best]
        return f"{each}: {gain:+.2f} dB against the best filter, {best}."

    return {
        "title": "A noisy photograph, denoised",
        "text": (
            f"White noise of sigma {sigma:g}: the filters are given sigma, the network ({weights}) "
            f"is not and estimates {ours.sigma:.1f}. From left to right, "
            f"then down: {', '.join(of_white)}. {scores_text(of_white)} "
            f"Last row: simulated camera noise, {CAMERA_RMS:g} RMS (raw noise, demosaicing, "
            f"colour matrix, tone curve, JPEG), where the filters are given the level with the "
            f"best PSNR on this picture: {', '.join(of_camera)}. {scores_text(of_camera)}"
        ),
        "picture": path.name,
    }
