"""How much does each choice in a denoiser contribute? Short runs with equal budgets.

    aejax study experiments/denoise/ablations.py --data-dir DATA
    aejax study experiments/denoise/ablations.py:supervision --data-dir DATA     (one question)

Gray images, 1,500 steps of 8 crops of 64 pixels, a UNetDenoiser of 32 / 64 / 128 channels (30
kMAC/pixel) except in `size`. Each run is measured by the protocol at sigma 5, 15, 25, 50 and 75 on
the middle 192x192 pixels of the held-out photographs. If all questions are run together, a run that
belongs to two of them is done once and is listed under the first. The questions:

    told         blind, or with the noise level as input, always or in a part of the examples
    range        trained on sigma 0 to 55, 0 to 30, or only 25; measured at 75 as well
    size         depth and width against quality and time; DnCNN; blocks; unshuffling
    balance      equal weights of noise levels, or (sigma + 3)^-0.7 (MAE), with clean images
    residual     y = x_tilde + f against y = f, with and without biases
    optimiser    Muon against Adam
    supervision  clean targets against Noise2Noise, Noise2Void, Noise2Self, Neighbor2Neighbor at 25

Cost: about four minutes a run on an idle core of an AMD EPYC without AVX-512. Results: README.md
beside this file.
"""

from ml_collections import ConfigDict

from aejax.config import base, flags
from aejax.study import Study, named

UNET = "aejax.denoising.models:UNetDenoiser"
FAST = "aejax.denoising.models:ResidualDenoiser"
DNCNN = "aejax.denoising.models:DnCNN"


def _sigma(*level):
    return {"corrupt": ({"name": "gaussian", "sigma": level if len(level) > 1 else level[0]},)}


def _kwargs(**kwargs):
    return {f"model.kwargs.{name}": value for name, value in kwargs.items()}


def _objective(name):
    return {"objective.name": f"aejax.denoising.objective:{name}", **_sigma(25.0)}


def _balanced(loss, power):
    return {
        "objective.name": "aejax.denoising.objective:Supervised",
        "objective.loss": ConfigDict({loss: 1.0}),
        "objective.kwargs": ConfigDict({"balance": power}),
    }


def _model(name, **kwargs):
    return {"model.name": name, "model.kwargs": ConfigDict(kwargs)}


TELL = {"objective.kwargs": ConfigDict({"tell": ("sigma",)})}
QUESTIONS = {
    "told": {
        "blind": {},
        "told": {**TELL, **_kwargs(told="always")},
        "sometimes": {**TELL, **_kwargs(told="sometimes")},
    },
    "range": {
        "0 to 55": {},
        "0 to 30": _sigma(0.0, 30.0),
        "only 25": _sigma(25.0),
        "0 to 55, biases": _kwargs(bias_free=False),
    },
    "size": {
        "U 32/64/128": {},
        "U 16/32/64": _kwargs(widths=(16, 32, 64)),
        "flat 32 x 2 (40 k)": _model(FAST, width=32, blocks=2),
        "U 32/64, 2 levels": _kwargs(widths=(32, 64), blocks=(1, 4, 1)),
        "flat 64 x 2": _model(FAST, width=64, blocks=2),
        "DnCNN 7, 32 wide": _model(DNCNN, depth=7, width=32),
        "U 32/64/128, 2 blocks": _kwargs(blocks=(2, 2, 4, 2, 2)),
        "U gated 32/64/128": _kwargs(block="gated", blocks=(3, 3, 5, 3, 3)),
        "U 48/96/192": _kwargs(widths=(48, 96, 192)),
    },
    "balance": {
        "MAE": {"objective.loss": ConfigDict({"mae": 1.0})},
        "MAE, balanced": _balanced("mae", 0.7),
        "MSE": {},
        "MSE, balanced": _balanced("mse", 1.4),
        "MAE, balanced, -4 to 55": {**_balanced("mae", 0.7), **_sigma(-4.0, 55.0)},
    },
    "residual": {
        "residual": {},
        "direct": _kwargs(residual=False),
        "residual, biases": _kwargs(bias_free=False),
    },
    "optimiser": {
        "Muon 2e-3": {},
        "Muon 1e-3": {"optim.lr": 1e-3},
        "Muon 4e-3": {"optim.lr": 4e-3},
        "Adam 1e-3": {"optim.name": "adam", "optim.lr": 1e-3},
        "Adam 2e-3": {"optim.name": "adam", "optim.lr": 2e-3},
    },
    "supervision": {
        "clean targets": _sigma(25.0),
        "Noise2Noise": _objective("Noise2Noise"),
        "Noise2Void": _objective("Noise2Void"),
        "Noise2Self": _objective("Noise2Self"),
        "Neighbor2Neighbor": _objective("Neighbor2Neighbor"),
    },
}


def get_config(arg: str = ""):
    """One run: blind, 0 to 55. `arg` "smoke" shrinks it to seconds on the bundled photos."""
    c = base()
    c.task = "denoise"
    c.data.source = "folder:train/photos"
    c.data.holdout = 20
    c.data.channels = 1
    c.data.crop = 64
    c.data.flip = c.data.rotate = True
    c.data.batch = 8
    c.corrupt = ({"name": "gaussian", "sigma": (0.0, 55.0)},)
    c.model.name = UNET
    c.model.kwargs = ConfigDict({"widths": (32, 64, 128), "blocks": (1, 1, 2, 1, 1)})
    c.objective.loss = ConfigDict({"mse": 1.0})
    c.optim.name = "aejax.denoising.optim:muon"
    c.optim.lr = 2e-3
    c.optim.warmup = "50 steps"
    c.optim.final_lr = 0.01
    c.optim.clip = 1.0
    c.optim.ema = 0.99
    c.train.length = "1500 steps"
    c.eval.batch = 7
    c.eval.metrics = ("psnr", "mse")
    c.eval.pictures = 4
    if "smoke" in flags(arg, "smoke"):
        c.data.source, c.data.holdout = "bundled:photos", 0
        c.data.crop, c.data.batch, c.eval.batch = 32, 8, 4
        c.model.kwargs = ConfigDict({"widths": (16, 32, 64), "blocks": (1, 1, 1, 1, 1)})
        c.optim.warmup, c.train.length = "2 steps", "6 steps"
        c.eval.examples, c.eval.crop = 4, 64
    return c


def protocol_of(workdir, images, sigmas):
    """Measures a run by the protocol on (name, image) pairs: {"test/psnr@25": dB, ..., and the
    cost}."""
    from aejax.denoising.api import load_network
    from aejax.denoising.cost import macs_per_pixel
    from aejax.denoising.protocol import Method, evaluate

    network = load_network(str(workdir))
    method = Method(lambda x, s: network(x, s), blind=not network.needs_sigma)
    measured = {"kmac_per_px": macs_per_pixel(network.model, 1) / 1e3}
    for row in evaluate(images, {"it": method}, sigmas, with_ssim=False):
        measured[f"test/psnr@{row.sigma:g}"] = row.psnr
        measured["seconds_per_mp"] = row.seconds_per_mp
    return measured


def on_held_out(run):
    """Measures a run by the protocol on the held-out photographs."""
    from aejax.data.source import open_source

    data = run.config.data
    source = open_source(
        data.source, "test", data_dir=run.data_dir, holdout=data.holdout, channels=1
    )
    images = [source.read(i)[0] for i in range(len(source))]
    side = 192
    images = [x for x in images if min(x.shape[:2]) >= side]
    images = [
        ("", x[(x.shape[0] - side) // 2 :][:side, (x.shape[1] - side) // 2 :][:, :side])
        for x in images
    ]
    return protocol_of(run.workdir, images, (5, 15, 25, 50, 75))


def get_study(arg: str = ""):
    """All questions, or those that `arg` names; "smoke": two short runs of each."""
    words = flags(arg, "smoke", *QUESTIONS)
    selected = [q for q in QUESTIONS if q in words] or list(QUESTIONS)
    smoke, runs = "smoke" in words, []
    for question in selected:
        members = QUESTIONS[question]
        if smoke:
            members = dict(list(members.items())[:2])
        runs += [{"@question": question} | r for r in named("answer", members)]
    return Study(
        name="_".join(["denoise_ablations", *(selected if len(selected) < len(QUESTIONS) else [])]),
        title="What each decision about a denoiser is worth",
        config=lambda: get_config("smoke" if smoke else ""),
        runs=runs,
        measure=on_held_out,
        facet="@question",
        by="@answer",
        x="kmac_per_px",
        y="test/psnr@25",
        columns=("parameters", "kmac_per_px", "test/psnr@5", "test/psnr@15", "test/psnr@25",
                 "test/psnr@50",
                 "test/psnr@75", "seconds_per_mp", "examples_per_sec"),
        baselines=(),
    )  # fmt: skip
