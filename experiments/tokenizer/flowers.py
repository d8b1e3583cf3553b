"""A small KL term or a fixed grid: what do as many bits keep of a flower at 64x64?

    aejax study experiments/tokenizer/flowers.py --directory runs/tokenizer-flowers

with the 900 flowers of AEJAX_DATA. Both are the convolutional pair of kl_f8.py, narrower, without
LPIPS weights and opponent: 64x64x3 -> 8x8 positions.

    fsq   one code of 15,360 values (8 x 8 x 8 x 6 x 5) for each position, 890 bits a picture
    kl    4 numbers for each; |KL - C| holds the KL at C = 890 bits = 617 nats. "PSNR, sample" is
          at that many bits; test/psnr is of the posterior's mean, which tells f_D more

The study's folder gets the table, report.html and flowers.jpg: held-out flowers and what each
makes of them. "smoke" takes seconds, on the bundled photographs.
"""

import math
import pathlib

from imagenet256 import imagenet

from aejax.config import flags, part
from aejax.study import Study

LEVELS = (8, 8, 8, 6, 5)
NATS = math.log(math.prod(LEVELS))  # of one position


def get_config(arg: str = ""):
    """What both share; `arg`: "smoke"."""
    smoke = "smoke" in flags(arg, "smoke")
    c = imagenet(smoke)
    widths = (8, 8, 8, 8) if smoke else (32, 64, 64, 96)
    c.model.f_E = part("vqgan", widths=widths, depth=1)
    c.model.f_D = part("vqgan", widths=widths, depth=1)
    c.model.latent = 4
    c.objective.terms = {}
    c.objective.kwargs = {}
    if smoke:
        return c
    c.data.source, c.data.split, c.data.holdout = "folder:train/flowers64", "train", 10
    c.data.eval_source, c.data.eval_split = "", "test"
    c.data.size, c.data.crop, c.eval.crop = (), 0, 0
    c.data.cache, c.data.workers, c.data.on_bad = "auto", 0, "error"
    c.data.batch, c.eval.batch, c.eval.examples = 16, 30, 0
    c.model.dtype = "float32"
    c.optim.lr, c.optim.b1, c.optim.b2 = 1e-3, 0.9, 0.99
    c.optim.warmup, c.train.length = "200 steps", "60 epochs"
    c.eval.every, c.eval.best = "", "psnr"
    return c


def bottlenecks(positions: int) -> dict[str, dict]:
    """The changes of each run, for so many positions of h."""
    rate = NATS * positions
    return {
        "kl": {
            "model.bottleneck": part("gaussian", capacity=rate),
            "objective.terms": {"capacity": 1.0},
        },
        "fsq": {"model.bottleneck": part("fsq", levels=LEVELS), "model.latent": 32},
    }


def measured(run) -> dict[str, float]:
    """Bits of a held-out picture (of the KL, or of its codes), and PSNR of f_D given a sample."""
    import jax
    import numpy as np

    from aejax.data.pipeline import make_pipeline
    from aejax.metrics.image import psnr
    from aejax.objective import rngs_of
    from aejax.report.pca import test_images

    model, variables = run.model.model, run.model.variables

    @jax.jit
    def drawn(x, key):
        y = model.apply(variables, x, None, train=True, rngs=rngs_of(key)).y
        return jax.numpy.clip(y, 0.0, 1.0)

    pipeline = make_pipeline(run.config, training=False, data_dir=run.data_dir)
    x = np.concatenate([x for x, _ in test_images(pipeline)]).astype(np.float32) / 255
    pipeline.close()
    y = np.asarray(drawn(x, jax.random.key(0)))
    np.savez_compressed(run.workdir / "samples.npz", x=x, y=y)
    metrics, numbers = run.result["metrics"], run.result["input_size"]
    nats = metrics["test/kl"] if "test/kl" in metrics else metrics["test/bits"] * math.log(2)
    return {
        "test/bits": nats * numbers / math.log(2),  # the objective divides terms by `numbers`
        "test/psnr, sample": float(np.mean(psnr(x, y))),
    }


def sheet(results: list[dict], directory: pathlib.Path) -> list[dict]:
    """flowers.jpg: held-out pictures, and what each tokenizer makes of them."""
    import numpy as np

    from aejax import pictures

    rows = []
    for result in results:
        made = np.load(directory / result["id"] / "samples.npz")
        x, y = (np.uint8(255 * made[k][:: max(1, len(made[k]) // 10)] + 0.5)[:10] for k in "xy")
        psnr = f"{result['metrics']['test/psnr, sample']:.2f} dB"
        rows += [
            *([] if rows else [("held out", "", x)]),
            (result["labels"]["bottleneck"], psnr, y),
        ]
    file = directory / "flowers.jpg"
    pictures.save(file, pictures.rows_sheet(rows, side=128), "JPEG")
    return [{"title": "Held-out pictures", "text": "", "picture": file}]


def get_study(arg: str = ""):
    """Both tokenizers, one seed."""
    smoke = "smoke" in flags(arg, "smoke")
    runs = bottlenecks((32 if smoke else 64) ** 2 // 64)
    return Study(
        name="tokenizer_flowers",
        title="A small KL term against a fixed grid, at equal bits",
        config=lambda: get_config(arg),
        runs=[{"@bottleneck": name, **changes} for name, changes in runs.items()],
        measure=measured,
        finish=sheet,
        columns=(
            *("parameters", "test/bits", "test/psnr, sample", "test/psnr", "test/ssim"),
            "seconds.total",
        ),
        x="test/bits",
        y="test/psnr, sample",
        by="@bottleneck",
        baselines=(),
    )
