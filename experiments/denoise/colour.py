"""Trains the shipped colour denoiser: as gray.py, on RGB, started from the gray weights.

    aejax train --config experiments/denoise/colour.py --workdir runs/denoise_colour

At initialisation it denoises the mean of the channels and corrects all three equally, so it starts
with the features of the gray model (`models.in_colour`). Then a second round from the shipped
weights:

    aejax train --config experiments/denoise/colour.py:more --workdir runs/denoise_colour_more

Cost: 1.8 h for 10,000 steps and 1.9 h for 13,500 steps of the second round, on one core of an AMD
EPYC; 3.4 M parameters, 122 kMAC/pixel. Result: README.md beside this file.
"""

from gray import get_config as gray
from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg` "smoke": seconds on the bundled photos; "more": start from the shipped weights."""
    c = gray(arg, channels=3)
    if not arg:
        c.model.start = "gray"
        c.optim.lr = 1.5e-3
        c.train.length = "10000 steps"
    return c
