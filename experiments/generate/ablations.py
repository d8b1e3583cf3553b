"""What each choice in a generator is worth: one change at a time, on Fashion-MNIST, three seeds.

    aejax study experiments/generate/ablations.py:WHICH --directory runs/generate-WHICH

WHICH is one of

    prior       one autoencoder (noisy latents) under N(0, I), a Gaussian, GMM-10, GMM-100, a flow
    latent      4, 8, 16, 32 numbers in h, under GMM-10
    beta        the rate-distortion curve of the VAE: KL weight 1/4, 1, 4, 16, own prior and GMM-10
    bits        48 bits a picture: KL held at 33.3 nats, VQ (8 of 64 codes), FSQ (8 of 4x4x4)
    likelihood  normal with sigma 0.15 or of maximum likelihood, a variance for each pixel,
                Bernoulli, a mixture of logistics
    ema         decay 0, 0.99, 0.999 of the averaged weights, of autoencoder and flow

and "seeds=1" or "smoke" may follow. Models, training and what is measured are those of table.py.

Results, results/ablations/WHICH.md, one seed (seeds=1; 2026-11-27, one core of an AMD EPYC without
AVX-512, jax 0.12.0.1; prior 7 minutes, latent 7, beta 8, likelihood 20, ema 17, bits 28). FD is of
10,000 samples on the shipped classifier, floor 0.038:

    prior       N(0, I) 15.05, one Gaussian 7.11, GMM-10 3.24, flow 2.27, GMM-100 1.89
    latent      4 numbers 7.12, 8 4.11, 16 3.24, 32 2.53 (reconstructions of 17.8 to 20.6 dB)
    beta        1/4, 1, 4, 16: KL 54.7, 36.4, 19.5, 9.2 nats, distortion -569, -565, -546, -477
                (beta.png), FD under N(0, I) 10.0, 7.4, 5.1, 4.9 and under GMM-10 2.08, 2.03, 2.70,
                4.44: a strong KL is for those who have no other prior
    likelihood  under GMM-10 the fixed normal is best (2.03), its best sigma as good (2.09), then a
                variance for each pixel 2.38, the mixture 2.53, Bernoulli 2.69; under N(0, I)
                Bernoulli is (4.38 against 7.41), whose KL weighs more
    ema         in runs as short as these 0.999 costs 0.3 (GMM-10) to 0.4 (flow), 0.99 nothing
    bits        at 48 bits VQ 20.1 dB and FD 0.96, KL 19.8 dB and 1.81 (flow), FSQ 19.3 dB and 1.31
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
    found = {
        "normal, sigma 0.15": {"objective.kwargs": fixed},
        "normal, best sigma": {"objective.kwargs": {"likelihood": "normal"}},
        "bernoulli": with_decoder("bernoulli"),
        "variance per pixel": with_decoder("gaussian"),
        "logistic mixture": with_decoder("mixture"),
    }
    return {k: model("vae") | v for k, v in found.items()}


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
    more = {"beta": ("test/kl", "test/distortion"), "bits": ("test/bits", "test/kl")}
    return Study(
        name=f"generate-{which}",
        title=f"Generators: {which}",
        config=config,
        runs=product(named(which, members), seeds(TABLE.seeds_in(words))),
        train=functools.partial(TABLE.measured, priors=priors, same_ema=which == "ema"),
        columns=(
            *(f"test/fd, {p}" for p in priors),
            *("test/density", "test/coverage", "test/psnr", *more.get(which, ()), "test/fit_s"),
        ),
        x="test/kl" if which == "beta" else "test/psnr",
        y="test/distortion" if which == "beta" else "test/fd",
        by=f"@{which}",
        baselines=(),
    )
