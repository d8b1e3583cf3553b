"""A study of three runs: a crash, a mistake and a success."""

from aejax.config import base
from aejax.errors import UserError
from aejax.study import Study, seeds


def train(config, workdir):
    if config.seed < 2:
        raise (UserError("a mistake") if config.seed else RuntimeError("a crash"))
    return {"metrics": {"test/psnr": 1.0}}


def get_study(arg=""):
    return Study("failing", base, seeds(3), train=train, baselines=())
