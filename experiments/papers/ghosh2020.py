"""Ghosh et al. 2020: is a deterministic autoencoder with a fitted density as good as a VAE?

    aejax study experiments/papers/ghosh2020.py --data-dir DATA

P. Ghosh, M. S. M. Sajjadi, A. Vergari, M. Black, B. Schoelkopf, "From variational to deterministic
autoencoders", ICLR 2020 (arXiv:1903.12436), table 1, MNIST: Inception FID of samples, drawn from
the model's own prior (VAE, WAE) or a Gaussian fitted to the codes (AE, RAE), and from a mixture of
ten Gaussians. The paper's figures stand beside each row.

Scaled down: the dense autoencoder and the 8 epochs of experiments/generate/table.py in place of a
convolutional one and 100 epochs. The distance is between features of a digit classifier, another
scale than Inception's: what can be compared is the order of the rows and what the mixture gains.
That table's RAE column with more priors, GAN and PCA: `table.py digits`.

Cost: about 40 s of training and 20 s of measuring per row, 5 minutes in all on 2 quiet cores.
Results: README.md beside this file.
"""

import pathlib

import numpy as np

from aejax.config import flags, load_module
from aejax.study import Study

TABLE = load_module(str(pathlib.Path(__file__).parents[1] / "generate" / "table.py"))
MODELS = ("ae", "vae", "wae", "rae", "rae-sn")
MIXTURE = "gmm-10"


def config(model: str, arg: str = ""):
    """The table's config of a model on MNIST; "smoke" as there."""
    smoke = "smoke" in flags(arg, "smoke")
    c = TABLE.get_config(f"digits,{model}" + ",smoke" * smoke)
    if smoke:
        c.train.devices = 1
    return c


def first_prior(c) -> str:
    """What the paper's first column draws h from: the model's own prior, or a fitted Gaussian."""
    return "normal" if {"kl", "mmd"} & set(c.objective.terms) else "gaussian"


def _pixels(images):
    """A stand-in for the classifier where there is none: a quarter of the pixels."""
    return images.reshape(len(images), -1)[:, ::4] / 255.0, None


def distances(run):
    """The distance of samples of two priors on the codes from the test split."""
    from aejax.config import plain
    from aejax.data.decoded import decoded
    from aejax.data.source import open_source
    from aejax.generation.features.classifier import extractor
    from aejax.generation.latent import LatentModel, fit_prior
    from aejax.generation.metrics import frechet

    config, measured = run.config, {}
    sets = [decoded(open_source(config.data.source, s, data_dir=run.data_dir, holdout=10))
            for s in ("train", "test")]  # fmt: skip
    real, test = (np.asarray(s.data).reshape(-1, *s.source.shape) for s in sets)
    extract = extractor("digits-classifier") if real.shape[1:] == (28, 28, 1) else _pixels
    features = extract(test)[0]
    for name in (first_prior(config), MIXTURE):
        net = LatentModel(
            shape=real.shape[1:], autoencoder=plain(config.model), prior=TABLE.PRIORS[name]
        )
        variables = {n: {"ae": tree} for n, tree in run.model.variables.items()}
        variables = fit_prior(net, variables, real[:20000], seed=config.seed)
        column = "mixture of 10" if name == MIXTURE else "own or Gaussian"
        made, _ = TABLE.sampled(net, variables, len(test), seed=0)
        distance = frechet(features, extract(made)[0])
        measured[f"test/distance, {column}"] = distance
    return measured


def get_study(arg: str = ""):
    """The models of the table; its figures are labels of the rows."""
    smoke = "smoke" in flags(arg, "smoke")
    base, runs = config("ae", arg), []
    for model in MODELS[:3:2] if smoke else MODELS:
        c = config(model, arg)
        runs.append(
            {
                "@model": model,
                "@FID in print, own or Gaussian": TABLE.PUBLISHED[f"{model} + {first_prior(c)}"],
                "@FID in print, mixture": TABLE.PUBLISHED[f"{model} + {MIXTURE}"],
                "model.bottleneck": c.model.bottleneck,
                "model.f_D": c.model.f_D,
                "objective.terms": c.objective.terms,
            }
        )
    return Study(
        name="ghosh2020",
        title="Ghosh et al. 2020: autoencoders with a density fitted afterwards",
        config=base,
        runs=runs,
        measure=distances,
        columns=(
            *("test/distance, own or Gaussian", "test/distance, mixture of 10", "test/psnr"),
            "seconds.total",
        ),
        x="@FID in print, mixture",
        y="test/distance, mixture of 10",
        baselines=(),
    )
