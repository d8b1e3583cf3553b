"""An experiment and a study that name parts of my_package, beside it in the current folder."""

from aejax.config import base, part
from aejax.study import Study, grid

P = "my_package.parts:"


def get_config(arg=""):
    c = base()
    c.data.source = P + "Pictures"
    c.data.batch = 16
    c.model.latent = 4
    c.model.f_E = part(P + "Encoder", width=8)
    c.model.bottleneck = part(P + "Half")
    c.model.f_D = part(P + "Decoder")
    c.corrupt = ({"name": P + "shift", "by": 1},)
    c.objective.name = P + "Objective"
    c.objective.kwargs = {"factor": 2.0}
    c.objective.terms = {"size": 0.001}
    c.objective.loss = {"mse": 1.0, P + "cubic": 0.5}
    c.optim.name = "optax:adagrad"
    c.optim.kwargs = {"eps": 1e-6}
    c.optim.schedule = "optax:cosine_onecycle_schedule"
    c.train.length = "6 steps"
    c.train.mode = "jit"
    c.train.devices = 1
    c.eval.every = "3 steps"
    c.eval.metrics = ("mse", P + "worst")
    c.eval.best = "-" + P + "worst"
    c.eval.pictures = 2
    return c


def get_study(arg=""):
    own = {
        "optim.name": [P + "momentum"],
        "optim.kwargs": [{"decay": 0.9}],
        "optim.schedule": [P + "halving"],
        "optim.schedule_kwargs": [{"times": 2}],
        "objective.loss": [{P + "cubic": 1.0}],
        "seed": range(2),
    }
    return Study(
        name="own", config=get_config(), runs=grid(own), baselines=(),
        train=P + "train", finish=P + "finish",
    )  # fmt: skip
