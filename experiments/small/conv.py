"""How much smaller can a convolutional autoencoder of Fashion-MNIST be? As dense.py; three seeds.

    aejax study experiments/small/conv.py --data-dir DATA

Cost: not measured; its 27 runs have not been run. `conv.py:smoke` takes a few steps.
"""

from dense import get_config as dense
from dense import study_of

from aejax.config import flags, part


def get_config(arg: str = ""):
    c = dense(arg)
    c.data.source = "tfds:fashion_mnist"
    c.model.f_E = part("conv", widths=(16, 32))
    c.model.f_D = part("conv", widths=(16, 32))
    if "smoke" in flags(arg, "smoke"):
        c.data.source = "bundled:digits"
        c.model.f_E, c.model.f_D = part("conv", widths=(4, 8)), part("conv", widths=(4, 8))
    return c


def get_study(arg: str = ""):
    return study_of("conv", "as trained", get_config, arg, ("widths",), {})
