"""The gray denoiser at half the multiplications, a pupil of the one that ships; or it in int8.

    aejax train --config experiments/small/denoiser.py --workdir runs/denoiser-half
    aejax train --config experiments/small/denoiser.py:int8 --workdir runs/denoiser-int8

Widths of 45, 90 and 180 instead of 64, 128 and 256: 60 instead of 120 kMAC/pixel. Half of the loss
is measured to what the teacher makes of the same noisy crop. `int8` goes on from the weights that
ship with products of 8-bit integers. Neither has been run in full,
so that the cost is not known.
"""

import pathlib

from ml_collections import ConfigDict

from aejax.config import flags, load

GRAY = pathlib.Path(__file__).parents[1] / "denoise" / "gray.py"


def get_config(arg: str = "") -> ConfigDict:
    """arg: "int8", "smoke"."""
    asked = flags(arg, "int8", "smoke")
    c = load(f"{GRAY}:smoke" if "smoke" in asked else str(GRAY))
    if "int8" in asked:
        c.model.quantise = {"weights": "int8", "activations": "int8"}
        c.model.start = "" if "smoke" in asked else "gray"
        c.optim.lr = 2e-4
        c.train.length = "6 steps" if "smoke" in asked else "3000 steps"
        return c
    c.objective.name = "aejax.small.distil:Distil"
    c.objective.kwargs = {"teacher": "gray", "outputs": 0.5, "tell": ("sigma",)}
    if "smoke" not in asked:
        c.model.kwargs.widths = (45, 90, 180)
    return c
