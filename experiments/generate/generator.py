"""Trains the shipped generators: an autoencoder with noisy latents, then flow matching over them.

    aejax train --config experiments/generate/classifier.py:fashion,perceptual --workdir runs/eye
    python experiments/generate/ship.py classifier runs/eye fashion-perceptual
    aejax train --config experiments/generate/generator.py:fashion,ae --workdir runs/fashion-ae
    aejax train --config experiments/generate/generator.py:fashion,prior --workdir runs/fashion \\
        --config.objective.kwargs.autoencoder=runs/fashion-ae
    python experiments/generate/ship.py generator runs/fashion fashion-mnist

Arguments: digits | fashion, ae | prior, smoke. Cost: 20 minutes for the autoencoder and 10 for the
flow on one core of an AMD EPYC. Results: aejax/weights/fashion-mnist.json and README.md.
"""

from aejax.config import base, flags, part

SETS = {"digits": "tfds:mnist", "fashion": "tfds:fashion_mnist"}
# numbers in h, hidden units (the weights must be small to ship), epochs; of the prior: width, steps
SIZES = {
    "digits": (24, (256, 128), "15 epochs", 192, "3000 steps"),
    "fashion": (64, (768, 384), "40 epochs", 256, "20000 steps"),
}


def get_config(arg: str = ""):
    words = flags(arg, "digits", "fashion", "ae", "prior", "smoke")
    name = "digits" if "digits" in words else "fashion"
    smoke = "smoke" in words
    c = autoencoder(name, smoke)
    return prior(c, name, smoke) if "prior" in words else c


def autoencoder(name: str, smoke: bool = False):
    """Latents whose every number has noise of a tenth of its own spread."""
    latent, hidden, length, _, _ = SIZES[name]
    c = base()
    c.task = "generate"
    c.data.source = SETS[name]
    c.data.batch = 128
    c.model.latent = latent
    c.model.f_E = part("dense", hidden=hidden)
    c.model.bottleneck = part("gaussian", noise="fixed", sigma=0.1, standardise=True)
    c.model.f_D = part("dense", hidden=hidden[::-1], output_activation="sigmoid")
    c.objective.name = "aejax.generation.objective:Evidence"
    c.objective.terms = {"l2": 1e-3}
    c.objective.kwargs = {
        "likelihood": "normal",
        "arguments": {"sigma": 0.1},
        "perceptual": 200.0 if name == "fashion" else 0.0,
        "perceptual_model": f"{name}-perceptual",
        "perceptual_share": 0.5,
    }
    c.optim.lr, c.optim.warmup, c.optim.clip, c.optim.ema = 1.5e-3, "100 steps", 1.0, 0.998
    c.train.length = length
    c.eval.metrics, c.eval.best, c.eval.batch = ("psnr", "ssim", "mse"), "psnr", 500
    if smoke:
        c.data.source, c.data.batch, c.eval.batch = "bundled:digits", 32, 32
        c.model.latent, c.optim.warmup, c.train.length = 6, "1 steps", "3 steps"
        c.model.f_E = part("dense", hidden=(16,))
        c.model.f_D = part("dense", hidden=(16,), output_activation="sigmoid")
        c.objective.kwargs.perceptual = 0.0
    return c


def prior(ae, name: str, smoke: bool = False):
    """Class-conditional flow matching, an MLP, on the latents of `ae`."""
    _, _, _, width, length = SIZES[name]
    c = ae.copy_and_resolve_references()
    c.model.name = "aejax.generation.latent:LatentModel"
    c.model.kwargs = {
        "autoencoder": {k: v for k, v in ae.model.to_dict().items()},
        "prior": {"name": "flow_matching", "net": "mlp", "width": width, "depth": 4},
        "classes": 10,
    }
    c.objective.name = "aejax.generation.objective:LatentPrior"
    c.objective.terms = {}
    c.objective.kwargs = {"autoencoder": ""}
    c.data.batch = 128
    c.optim.lr, c.optim.warmup, c.optim.clip, c.optim.ema = 1e-3, "200 steps", 1.0, 0.999
    c.train.length = length
    c.eval.metrics, c.eval.best = (), "-prior"
    if smoke:
        c.model.kwargs.prior.width, c.model.kwargs.prior.depth = 16, 1
        c.data.batch, c.optim.warmup, c.train.length = 32, "1 steps", "3 steps"
    return c
