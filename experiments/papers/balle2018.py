"""Balle et al. 2018: how many bits does a scale hyperprior save?

    aejax study experiments/papers/balle2018.py --data-dir DATA

J. Balle, D. Minnen, S. Singh, S. J. Hwang, N. Johnston, "Variational image compression with a scale
hyperprior", ICLR 2018 (arXiv:1802.01436), figure 7, Kodak: the hyperprior needs fewer bits at equal
PSNR than a factorized prior (Balle 2017). For the authors' points (CompressAI,
results/image/kodak/paper-bmshj2018-*.json) the saving is 18.3 % (BD-rate), computed by `finish`
below with the function that measures this package's codec.

Scaled down: the codec of experiments/compress with 96 latents and narrow networks (about a tenth of
the work), 4,000 steps of four 128x128 crops of the training photographs instead of millions of
steps; measured on eight held-out photographs, one model for five qualities. `mean-scale` (Minnen
2018) and `context` are what came after.

    loss   (bits per pixel + lambda MSE) over sqrt(lambda), mean over the qualities: one per cent of
           it is about one per cent of bits

Cost: about 2.5 minutes a run and 10 in all on 2 quiet cores. Results: README.md beside this file.
"""

import pathlib

from aejax.config import flags, load_module
from aejax.study import Study, named

ABLATIONS = load_module(str(pathlib.Path(__file__).parents[1] / "compress" / "ablations.py"))
WAYS = ("factorized", "hyperprior", "mean-scale", "context")
# (bits per pixel, PSNR) on Kodak, CompressAI results/image/kodak/paper-bmshj2018-NAME.json
KODAK = {
    "factorized": (
        *((0.119752, 26.7751), (0.194591, 28.3487), (0.316000, 30.0208), (0.481060, 31.7296)),
        *((0.721303, 33.6858), (1.060841, 35.8159), (1.458681, 38.0200), (1.957564, 40.1340)),
    ),
    "hyperprior": (
        *((0.115239, 27.1064), (0.185698, 28.6791), (0.301804, 30.6168), (0.468972, 32.5549)),
        *((0.686378, 34.5810), (0.966864, 36.7204), (1.307441, 38.8080), (1.727503, 40.7949)),
    ),
}


def config(arg: str = ""):
    """The ablations' config, narrow and short; "smoke" as there."""
    c = ABLATIONS.get_config(arg)
    if "smoke" in flags(arg, "smoke"):
        c.train.devices, c.eval.examples, c.eval.crop = 1, 2, 64
        return c
    c.model.latent = 96
    narrow = {"width": (96, 128), "encoder": (1, 1), "decoder": (1, 1)}
    c.model.kwargs.update(narrow | {"slices": (16, 32, 48), "features": 64, "context": 96})
    c.train.length = "4000 steps"
    c.eval.examples = 8
    return c


def saving(results, directory):
    """Per cent of bits less than the factorized prior needs: the paper's and ours."""
    from aejax.codec.evaluation.curves import bd_rate

    loss = {r["labels"]["prior"]: r["metrics"]["test/loss"] for r in results}
    printed = bd_rate(KODAK["factorized"], KODAK["hyperprior"])
    words = [f"The hyperprior on Kodak, in print: {printed:+.1f} % bits (BD-rate)."]
    for way, value in loss.items():
        if way != "factorized":
            change = 100 * (value / loss["factorized"] - 1)
            words.append(f"Ours, {way}: {change:+.1f} % loss, about as many per cent of bits.")
    return [{"title": "Against the factorized prior", "text": " ".join(words)}]


def get_study(arg: str = ""):
    """The two of the paper, and what came after."""
    smoke = "smoke" in flags(arg, "smoke")
    source = "Kodak at about 0.47 bits per pixel, CompressAI paper-bmshj2018-*.json"
    members = {way: ABLATIONS.VARIANTS[way] for way in WAYS[: 1 if smoke else None]}
    return Study(
        name="balle2018",
        title="Balle et al. 2018: what the hyperprior is worth",
        config=lambda: config(arg),
        runs=named("prior", members),
        columns=("parameters", "test/loss", "test/bpp", "test/bpp_z", "test/psnr"),
        x="@prior",
        y="test/loss",
        by="@prior",
        baselines=(),
        finish=saving,
        published=[
            {"name": way, "source": source, "test/bpp": points[3][0], "test/psnr": points[3][1]}
            for way, points in KODAK.items()
        ],
    )
