"""The quickstart: how well do k numbers reconstruct an image?

    aejax study experiments/quickstart.py

Nothing is downloaded: the data are the digits of scikit-learn (8x8, gray) and 96x96 crops of colour
photographs from scikit-image and scikit-learn. The study compares linear, dense and convolutional
autoencoders with several sizes of h, and PCA of the same sizes. The report then shows the shipped
models: a compressed photograph against JPEG of the same size, a denoised one against filters, and
generated images.

Cost: at most 3 minutes on 2 cores.
"""

from aejax.config import base, flags, part
from aejax.study import Study, grid, named, product

# digits: h is a vector
MODELS = {
    "linear": {"model.f_E": part("linear"), "model.f_D": part("linear")},
    "dense": {
        "model.f_E": part("dense", hidden=(256, 128)),
        "model.f_D": part("dense", hidden=(128, 256)),
    },
    "conv": {
        "model.f_E": part("conv", widths=(24, 48)),
        "model.f_D": part("conv", widths=(24, 48)),
    },
}
# photographs of any size: h has k channels at an eighth of the resolution
SPATIAL = {
    "linear": {"model.f_E": part("linear", patch=8), "model.f_D": part("linear", patch=8)},
    "conv": {
        "model.f_E": part("conv", widths=(32, 64, 128), spatial=True),
        "model.f_D": part("conv", widths=(32, 64, 128), spatial=True),
    },
}


def get_config(arg: str = ""):
    """The config of one run.

    Args:
      arg: "digits" (default) or "photos", a config for a folder of photographs too; "smoke"
        for a few seconds.
    """
    asked = flags(arg, "digits", "photos", "smoke")
    c = base()
    c.data.batch = 128
    c.optim.lr = 3e-3
    c.model.init = "pca"
    c.train.steps_per_dispatch = 4
    c.eval.batch = 100
    c.eval.metrics = ("psnr", "ssim", "mse")
    if "photos" in asked:
        c.data.source = "bundled:photos"
        # large crops, so that the padding affects few positions of h
        c.data.crop = 96
        c.data.batch = 4
        c.model.latent = 12
        c.model.f_E, c.model.f_D = SPATIAL["conv"].values()
        c.optim.lr = 1e-3
        c.train.length = "152 steps"
        c.eval.crop = 96  # one shape to compile; all training photographs are large enough
    else:
        c.data.source = "bundled:digits"
        c.data.holdout = 5
        c.train.length = "448 steps"
    if "smoke" in asked:
        c.train.length = "4 steps"
        c.train.steps_per_dispatch = 2
        c.train.devices = 1
        c.eval.crop = 8
    return c


def shipped(results, directory):
    """Sections of the report with the shipped models."""
    from aejax.codec.demo import compressed_photo
    from aejax.denoising.demo import restored_photo
    from aejax.generation.demo import drawn_pictures

    return [compressed_photo(directory), restored_photo(directory), drawn_pictures(directory)]


def get_study(arg: str = ""):
    """The study.

    Args:
      arg: "digits" or "photos" for one of them only; "smoke" for a few seconds.
    """
    asked = flags(arg, "digits", "photos", "smoke")
    smoke, runs = "smoke" in asked, []
    common = "smoke" if smoke else ""
    vectors = {name: MODELS[name] for name in ("linear", "dense")} if smoke else MODELS
    for data, models, sizes in (
        ("digits", vectors, (4,) if smoke else (2, 4, 8, 16)),
        ("photos", SPATIAL, (6,) if smoke else (6, 12)),
    ):
        if data not in (set(asked) - {"smoke"} or {data}):
            continue
        c = get_config(f"{data},{common}")
        if data == "photos" and not smoke:
            c.eval.crop = 256
        source = {f"data.{name}": c.data[name] for name in ("source", "crop", "holdout", "batch")}
        source |= {"train.length": c.train.length, "optim.lr": c.optim.lr, "eval.crop": c.eval.crop}
        runs += product([source], named("model", models), grid({"model.latent": sizes}))
    return Study(
        name="quickstart",
        title="How much of an image survives in k numbers?",
        config=lambda: get_config(common),
        runs=runs,
        finish=None if smoke else shipped,
    )
