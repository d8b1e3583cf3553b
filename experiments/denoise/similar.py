"""Does self-similarity improve the gray denoiser? A refinement that also sees non-local means.

    aejax train --config experiments/denoise/similar.py --workdir runs/denoise_similar

The shipped gray weights, frozen, give the pilot; the refinement (164,000 parameters) is trained.
"control" is the same refinement without non-local means; "joint" trains both networks together,
from the weights of a run:

    aejax train --config experiments/denoise/similar.py:joint --workdir runs/similar_joint \\
        --config.model.start=runs/denoise_similar

Its cost in full is not known: no complete run was done yet.
"""

from gray import get_config as gray
from ml_collections import ConfigDict

from aejax.config import flags


def get_config(arg: str = "") -> ConfigDict:
    """`arg` "smoke" shrinks it to seconds on the bundled photos."""
    words = flags(arg, "smoke", "control", "joint")
    c = gray("smoke" if "smoke" in words else "")
    c.model.name = "aejax.denoising.similar:SimilarDenoiser"
    c.model.kwargs.frozen = "joint" not in words
    if "control" in words:
        c.model.kwargs.limits = ()
    if "smoke" in words:
        c.model.kwargs.fine, c.model.kwargs.depth, c.model.kwargs.radius = 8, 1, 2
        return c
    c.model.start = "gray"
    if "joint" not in words:
        c.model.start_only, c.objective.kwargs.part = "^first/", "first"
    c.corrupt = ({"name": "gaussian", "sigma": (3.0, 55.0)},)
    c.data.crop, c.data.batch = 80, 8
    c.optim.lr, c.train.length = 2e-3, "6000 steps"
    c.eval.every = "1000 steps"
    return c
