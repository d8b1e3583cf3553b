"""Trains the classifiers of MNIST and Fashion-MNIST whose features are used to score samples.

    aejax train --config experiments/generate/classifier.py:fashion --workdir runs/fashion-judge
    python experiments/generate/ship.py classifier runs/fashion-judge fashion-classifier

Arguments: digits | fashion, perceptual (another net and seed, for the perceptual loss), smoke.
Cost on 2 cores of an Intel Xeon: "fashion" 38 minutes (22 of them training steps), "digits" 45
(11),
"fashion,perceptual" 11. Results: aejax/weights/fashion-classifier.json and README.md.
"""

from aejax.config import base, flags

SETS = {"digits": "tfds:mnist", "fashion": "tfds:fashion_mnist"}


def get_config(arg: str = ""):
    words = flags(arg, "digits", "fashion", "perceptual", "smoke")
    c = base()
    c.task = "generate"
    c.data.source = SETS["digits" if "digits" in words else "fashion"]
    c.data.batch = 128
    c.data.flip = "fashion" in words
    c.model.name = "aejax.generation.features.classifier:Classifier"
    c.objective.name = "aejax.generation.objective:Classification"
    if "perceptual" in words:
        c.seed = 1
        c.model.kwargs.widths, c.model.kwargs.features = (16, 32, 48), 48
    c.optim.name, c.optim.lr, c.optim.weight_decay = "adamw", 2e-3, 0.02
    c.optim.warmup, c.optim.clip, c.optim.ema = "200 steps", 1.0, 0.998
    c.train.length = "6 epochs" if "fashion" in words else "3 epochs"
    c.eval.metrics, c.eval.best, c.eval.batch = (), "accuracy", 500
    if "perceptual" in words:
        c.train.length = "2 epochs"
    if "smoke" in words:
        c.data.source, c.data.batch, c.data.flip = "bundled:digits", 32, False
        c.train.length, c.optim.warmup, c.eval.batch = "4 steps", "2 steps", 32
        c.model.kwargs.widths, c.model.kwargs.features = (4, 8), 8
    return c
