"""What does the gray denoiser lose with half the multiplications (distilled), or in int8?

    aejax train --config experiments/small/denoiser.py --workdir runs/denoiser-half
    aejax train --config experiments/small/denoiser.py:int8 --workdir runs/denoiser-int8

The small one has widths of 45, 90 and 180 instead of 64, 128 and 256: 60 instead of 120 kMAC/pixel.
Half of its loss compares with the output of the shipped model (the teacher) for the same noisy
crop. `int8` fine-tunes the shipped weights with products of 8-bit integers.

Cost: not measured; neither has been run in full.
"""

import pathlib

from ml_collections import ConfigDict

from aejax.config import flags, load

GRAY = pathlib.Path(__file__).parents[1] / "denoise" / "gray.py"


def get_config(arg: str = "") -> ConfigDict:
    """arg: "int8", "smoke"."""
    words = flags(arg, "int8", "smoke")
    c = load(f"{GRAY}:smoke" if "smoke" in words else str(GRAY))
    if "int8" in words:
        c.model.quantise = {"weights": "int8", "activations": "int8"}
        c.model.start = "" if "smoke" in words else "gray"
        c.optim.lr = 2e-4
        c.train.length = "6 steps" if "smoke" in words else "3000 steps"
        return c
    c.objective.name = "aejax.small.distil:Distil"
    c.objective.kwargs = {"teacher": "gray", "outputs": 0.5, "tell": ("sigma",)}
    if "smoke" not in words:
        c.model.kwargs.widths = (45, 90, 180)
    return c
