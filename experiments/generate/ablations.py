"""How much does each choice in a generative model contribute? One change at a time, Fashion-MNIST.

    aejax study experiments/generate/ablations.py:WHICH --directory runs/generate-WHICH

WHICH is one of

    prior       one autoencoder (noisy latents) under N(0, I), a Gaussian, GMM-10, GMM-100, a flow
    latent      h of size 4, 8, 16, 32, under GMM-10
    beta        the rate-distortion curve of the VAE: KL weight 1/4, 1, 4, 16, own prior and GMM-10
    bits        48 bits per picture: KL held at 33.3 nats, VQ (8 of 64 codes), FSQ (8 of 4x4x4)
    likelihood  normal with sigma 0.15 or the maximum-likelihood sigma, a variance per pixel,
                Bernoulli, a mixture of logistics
    ema         decay 0, 0.99, 0.999 of the averaged weights, of autoencoder and flow

"seeds=1" (instead of three seeds) or "smoke" may follow. Models, training and metrics are those of
table.py.

Cost of one seed on one core of an AMD EPYC without AVX-512: prior, latent and beta 7 to 8 minutes
each, ema 17, likelihood 20, bits 28. Results: README.md.
"""

import functools
import pathlib

from aejax.config import flags, load_module, part
from aejax.errors import UserError
from aejax.study import Study, named, product, seeds

TABLE = load_module(str(pathlib.Path(__file__).parent / "table.py"))
DECODER = "aejax.generation.likelihood:LikelihoodDecoder"
BITS = 48.0


def model(name: str, **changes) -> dict:
    """A model of the table, as overrides."""
    bottleneck, terms = TABLE.MODELS[name]
    return {"model.bottleneck": bottleneck, "objective.terms": terms} | changes


def likelihoods(hidden) -> dict:
    """Likelihood and the decoder that gives its parameters."""
    plain = {"hidden": hidden, "output_activation": "sigmoid"}

    def with_decoder(name):
        arguments = plain if name == "gaussian" else {"hidden": hidden}
        return {
            "objective.kwargs": {"likelihood": name},
            "model.f_D": part(DECODER, decoder="dense", likelihood=name, arguments=arguments),
        }

    fixed = {"likelihood": "normal", "arguments": {"sigma": 0.15}}
    changes = {
        "normal, sigma 0.15": {"objective.kwargs": fixed},
        "normal, best sigma": {"objective.kwargs": {"likelihood": "normal"}},
        "bernoulli": with_decoder("bernoulli"),
        "variance per pixel": with_decoder("gaussian"),
        "logistic mixture": with_decoder("mixture"),
    }
    return {k: model("vae") | v for k, v in changes.items()}


def variants(hidden=(512, 256)) -> dict[str, tuple[dict, tuple[str, ...]]]:
    """{which: ({variant: overrides}, priors)}."""
    held = part("gaussian", capacity=BITS * 0.6931, capacity_steps=1000)
    return {
        "prior": ({"noisy": model("noisy")}, (*TABLE.FITTED, "flow")),
        "latent": (
            {f"{k} numbers": model("noisy", **{"model.latent": k}) for k in (4, 8, 16, 32)},
            ("gmm-10",),
        ),
        "beta": (
            {f"beta {b:g}": model("vae", **{"objective.terms": {"kl": b}}) for b in
             (0.25, 1.0, 4.0, 16.0)},
            ("normal", "gmm-10"),
        ),
        "bits": (
            {
                "KL": {"model.bottleneck": held, "objective.terms": {"capacity": 20.0}},
                "VQ": model("vq"),
                "FSQ": model("fsq"),
            },
            ("flow", "transformer"),
        ),
        "likelihood": (likelihoods(hidden[::-1]), ("normal", "gmm-10")),
        "ema": (
            {f"decay {d:g}": model("noisy", **{"optim.ema": d}) for d in (0.0, 0.99, 0.999)},
            ("gmm-10", "flow"),
        ),
    }  # fmt: skip


def get_study(arg: str = ""):
    """The study of one choice; "smoke" as in table.py."""
    words = flags(arg, *variants(()), "smoke", "seeds=")
    smoke = "smoke" in words
    known = variants((16,) if smoke else (512, 256))
    which = next((w for w in words if w in known), "")
    if not which:
        raise UserError(f"name an ablation, ablations.py:NAME; known: {', '.join(known)}")
    members, priors = known[which]
    config = TABLE.get_config("fashion,ae" + ",smoke" * smoke)
    if smoke:
        config.train.devices = 1
    extra_columns = {"beta": ("test/kl", "test/distortion"), "bits": ("test/bits", "test/kl")}
    return Study(
        name=f"generate-{which}",
        title=f"Generators: {which}",
        config=config,
        runs=product(named(which, members), seeds(TABLE.seeds_in(words))),
        train=TABLE.trained,
        measure=functools.partial(TABLE.scored, priors=priors, same_ema=which == "ema"),
        columns=(
            *(f"test/fd, {p}" for p in priors),
            *(
                "test/density",
                "test/coverage",
                "test/psnr",
                *extra_columns.get(which, ()),
                "test/fit_s",
            ),
        ),
        x="test/kl" if which == "beta" else "test/psnr",
        y="test/distortion" if which == "beta" else "test/fd",
        by=f"@{which}",
        baselines=(),
    )
