"""Hinton and Salakhutdinov 2006: is a deep autoencoder better than PCA at 30 numbers per digit?

    aejax study experiments/papers/hinton2006.py --data-dir DATA

G. E. Hinton and R. R. Salakhutdinov, "Reducing the dimensionality of data with neural networks",
Science 313 (2006) 504-507, figure 2B: squared error per test image of MNIST, summed over pixels in
[0, 1], of reconstructions from 30 numbers: deep autoencoder 784-1000-500-250-30 3.00, logistic PCA
8.01, PCA 13.87. Its logistic units were pretrained layer by layer as Boltzmann machines, because
from a random start they did not train.

Scaled down: no pretraining, 8 epochs of Adam for the deep ones. What takes the place of the
pretraining is tried instead: Adam alone on the paper's logistic units, GELU units, and a start at
PCA (a linear path beside the network, whose share starts at zero). "logistic PCA" is one matrix
each way with a logistic output and cross-entropy, the paper's; "PCA" is the closed form.

Cost: 2.8 million weights, about 12 s an epoch and 6 minutes in all on 2 quiet cores. Results:
README.md beside this file.
"""

from ml_collections import ConfigDict

from aejax.config import base, flags, part
from aejax.study import Study, named

WIDTHS = (1000, 500, 250)
SOURCE = "Hinton and Salakhutdinov 2006, figure 2B"


def deep(widths, activation="gelu", output="identity"):
    """The paper's shape."""
    return {
        "model.f_E": part("dense", hidden=widths, activation=activation),
        "model.f_D": part(
            "dense", hidden=widths[::-1], activation=activation, output_activation=output
        ),
    }


def models(widths):
    """name -> overrides."""
    entropy = {"objective.loss": ConfigDict({"bce": 1.0})}
    linear = {"model.f_E": part("linear"), "model.f_D": part("linear"), "model.init": "pca"}
    shallow = {
        "model.f_E": part("linear"),
        "model.f_D": part("dense", hidden=(), output_activation="sigmoid"),
    }
    return {
        "PCA": linear | {"optim.lr": 1e-12, "optim.warmup": "0 steps", "train.length": "1 steps"},
        "logistic PCA": shallow | entropy | {"optim.lr": 3e-3},
        "deep, logistic units": deep(widths, "sigmoid", "sigmoid") | entropy,
        "deep, GELU": deep(widths, output="sigmoid") | entropy,
        "deep, GELU, from PCA": deep(widths) | {"model.init": "pca"},
    }


def config(arg: str = ""):
    """MNIST with 30 numbers; "smoke" the bundled digits with 6."""
    c = base()
    c.data.source = "tfds:mnist"
    c.data.batch = 128
    c.model.latent = 30
    c.optim.lr = 1e-3
    c.optim.warmup = "100 steps"
    c.train.length = "8 epochs"
    c.train.steps_per_dispatch = 4
    c.eval.batch = 500
    c.eval.metrics = ("mse", "psnr")
    if "smoke" in flags(arg, "smoke"):
        c.data.source, c.data.batch, c.eval.batch, c.model.latent = "bundled:digits", 64, 60, 6
        c.train.length, c.optim.warmup, c.train.devices = "4 steps", "0 steps", 1
    return c


def squared_error(run):
    """The error in the paper's unit: the sum over an image's pixels."""
    mse = run.result["metrics"]["test/mse"]
    return {"test/squared error": mse * run.result["input_size"]}


def get_study(arg: str = ""):
    """The three of the figure, and what takes the place of pretraining."""
    smoke = "smoke" in flags(arg, "smoke")
    members = models((16, 8) if smoke else WIDTHS)
    if smoke:
        members = {name: members[name] for name in ("PCA", "deep, GELU, from PCA")}
    return Study(
        name="hinton2006",
        title="Hinton and Salakhutdinov 2006: 30 numbers for a digit",
        config=lambda: config(arg),
        runs=named("model", members),
        measure=squared_error,
        columns=("parameters", "test/squared error", "test/psnr"),
        y="test/squared error",
        x="@model",
        baselines=(),
        published=[
            {"name": name, "source": SOURCE, "test/squared error": value}
            for name, value in (("PCA", 13.87), ("logistic PCA", 8.01), ("deep, pretrained", 3.0))
        ],
    )
