"""The colour denoiser that ships: as gray.py beside it, on RGB, started from the gray weights.

    aejax train --config experiments/denoise/colour.py --workdir runs/denoise_colour

At first it sees the mean of the channels and corrects all three alike; features that took the gray
model 16,000 steps are there from the first one. Cost: 3.4 M parameters, 122 kMAC/pixel. Result:
README.md beside this file.
"""

from gray import get_config as gray
from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg` "smoke" shrinks it to seconds on the bundled photos, "more" goes on from what ships."""
    c = gray(arg, channels=3)
    if not arg:
        c.model.start = "gray"
        c.optim.lr = 1.5e-3
        c.train.length = "10000 steps"
    return c
