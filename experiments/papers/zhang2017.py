"""Zhang et al. 2017 (DnCNN): residual learning, normalisation, and one network for all levels.

    aejax study experiments/papers/zhang2017.py --data-dir DATA

K. Zhang, W. Zuo, Y. Chen, D. Meng, L. Zhang, "Beyond a Gaussian denoiser: residual learning of deep
CNN for image denoising", TIP 2017 (arXiv:1608.03981), table II, BSD68, PSNR at sigma 15 / 25 / 50:
BM3D 31.08 / 28.57 / 25.62, DnCNN-S (one network per level) 31.73 / 29.23 / 26.23, DnCNN-B (one for
0 to 55) 31.61 / 29.16 / 26.23. Figure 2: batch normalisation and residual learning help each other.

Scaled down: depth 8 and width 32 (55 kMAC a pixel, a tenth of theirs), 800 steps of 8 crops of 64
pixels of the training photographs instead of 50 epochs of BSD400. Only one level (25) is trained
alone: its figures at 15 and 50 show what happens outside. "direct" learns y instead of y - x_tilde
(a U-net of 9 kMAC a pixel, since the DnCNN here is residual always).

Cost: about 1.8 minutes of training and 45 s of measuring (BSD68 at three levels) for each DnCNN, 11
minutes in all on 2 quiet cores. Results: README.md beside this file.
"""

import pathlib

from aejax.config import flags, load_module
from aejax.study import Study, named

ABLATIONS = load_module(str(pathlib.Path(__file__).parents[1] / "denoise" / "ablations.py"))
SIGMAS = (15, 25, 50)
SOURCE = "Zhang et al. 2017, table II"
PUBLISHED = {
    "BM3D": (31.08, 28.57, 25.62),
    "DnCNN-S": (31.73, 29.23, 26.23),
    "DnCNN-B": (31.61, 29.16, 26.23),
}


def models(depth, width):
    """name -> overrides."""

    def dncnn(sigma, norm=True):
        model = ABLATIONS._model(ABLATIONS.DNCNN, depth=depth, width=width, norm=norm)
        return {**model, **ABLATIONS._sigma(*sigma), "optim.name": "adam", "optim.lr": 1e-3}

    def unet(residual):
        return ABLATIONS._kwargs(widths=(16, 32, 64), residual=residual)

    return {
        "DnCNN, 0 to 55": dncnn((0.0, 55.0)),
        "DnCNN, only 25": dncnn((25.0,)),
        "DnCNN, 0 to 55, no normalisation": dncnn((0.0, 55.0), norm=False),
        "U-net, residual": unet(True),
        "U-net, direct": unet(False),
    }


def config(arg: str = ""):
    """The denoiser's ablations, shorter."""
    c = ABLATIONS.get_config(arg)
    if "smoke" in flags(arg, "smoke"):
        c.train.devices, c.train.length, c.eval.crop = 1, "3 steps", 32
    else:
        c.train.length = "800 steps"
    return c


def on_bsd68(run):
    """The protocol on BSD68 (the bundled photographs in the smoke form)."""
    from aejax.data.source import open_source

    smoke = run.config.data.source.startswith("bundled")
    where = ("bundled:photos", "test") if smoke else ("folder:test/bsd68", "all")
    source = open_source(*where, data_dir=run.data_dir, channels=1)
    images = [(name, source.read(i)[0]) for i, name in enumerate(source.names)]
    if smoke:
        images = [(name, x[:32, :32]) for name, x in images]
    return ABLATIONS.protocol_of(run.workdir, images, SIGMAS)


def get_study(arg: str = ""):
    """Noise range, normalisation, residual or direct."""
    smoke = "smoke" in flags(arg, "smoke")
    members = models(*((3, 8) if smoke else (8, 32)))
    if smoke:
        members = {name: members[name] for name in ("DnCNN, 0 to 55",)}
    columns = [f"test/psnr@{s}" for s in SIGMAS]
    return Study(
        name="zhang2017",
        title="Zhang et al. 2017: what makes a DnCNN, on BSD68",
        config=lambda: config(arg),
        runs=named("model", members),
        measure=on_bsd68,
        columns=("parameters", "kmac_per_px", *columns),
        x="@model",
        y="test/psnr@25",
        baselines=(),
        published=[
            {"name": name, "source": SOURCE} | dict(zip(columns, values, strict=True))
            for name, values in PUBLISHED.items()
        ],
    )
