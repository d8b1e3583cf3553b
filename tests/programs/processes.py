"""An experiment that several processes train as one."""

from tests.helpers import tiny


def get_config(arg=""):
    c = tiny(train__length="4000 steps", optim__ema=0.9, checkpoint__every="50 steps",
             train__steps_per_dispatch=5, eval__examples=0, eval__batch=50)  # fmt: skip
    c.train.mode = arg or "pmap"
    c.train.devices = 0
    return c
