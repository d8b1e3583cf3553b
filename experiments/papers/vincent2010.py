"""Vincent et al. 2010: how much of the input should be masked for a denoising autoencoder?

    aejax study experiments/papers/vincent2010.py --data-dir DATA

P. Vincent, H. Larochelle, I. Lajoie, Y. Bengio, P.-A. Manzagol, "Stacked denoising autoencoders",
JMLR 11 (2010) 3371-3408. Table 3, "basic" (10,000 digits of MNIST to train on): error of a
three-layer network pretrained as plain autoencoders 3.46 %, as denoising ones (a tenth of the
pixels masked) 2.84 %; on all of MNIST 1.40 % and 1.28 % (a quarter masked).

Scaled down: one layer of 1,000 logistic units, 8 epochs, and no fine-tuning: the code itself is
judged, by a linear classifier (ridge regression on the labels of the 10,000), so the errors are
higher than the paper's; what can be compared is whether masking helps, how much of it is best, and
the gap between 0 % and the best. Masked 0, 10, 25, 40 and 55 %. Tested on MNIST's 10,000.

Cost: 1.6 million weights, 2 minutes in all on 2 quiet cores. Results: README.md beside this file.
"""

import numpy as np
from ml_collections import ConfigDict

from aejax.config import base, flags, part
from aejax.study import Study

MASKED = (0.0, 0.1, 0.25, 0.4, 0.55)
RIDGE = 1e-3  # of the mean eigenvalue


def config(arg: str = ""):
    """784-1000-784, logistic units, cross-entropy; "smoke" 16 units on the bundled digits."""
    c = base()
    c.data.source, c.data.split = "tfds:mnist", "train[:10000]"
    c.data.batch = 128
    c.model.latent = 1000
    c.model.f_E = part("dense", hidden=(), code_activation="sigmoid")
    c.model.f_D = part("dense", hidden=(), output_activation="sigmoid")
    c.objective.loss = ConfigDict({"bce": 1.0})
    c.train.length = "8 epochs"
    c.train.steps_per_dispatch = 4
    c.eval.batch = 500
    c.eval.metrics = ("mse", "psnr")
    if "smoke" in flags(arg, "smoke"):
        c.data.source, c.data.split, c.model.latent = "bundled:digits", "train", 16
        c.data.batch, c.eval.batch = 64, 60
        c.train.length, c.train.devices = "4 steps", 1
    return c


def linear_error(train, test) -> float:
    """Per cent of `test` that ridge regression on the labels of `train` gets wrong; (h, label)."""
    h, label = train
    mean = h.mean(0)
    h, target = h - mean, np.eye(10, dtype=np.float32)[label]
    gram = (h.T @ h).astype(np.float64)
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.solve(gram, h.T @ (target - target.mean(0)))
    guess = ((test[0] - mean) @ weights + target.mean(0)).argmax(1)
    return 100.0 * float(np.mean(guess != test[1]))


def classified(run):
    """The errors of a linear classifier of h, and of the pixels themselves."""
    from aejax.data.decoded import decoded
    from aejax.data.source import open_source

    data, codes, pixels = run.config.data, [], []
    for split in (data.split, "test"):
        source = open_source(data.source, split, data_dir=run.data_dir, holdout=data.holdout)
        images = decoded(source)
        x = np.asarray(images.data).reshape(len(source), *source.shape)
        h = [np.asarray(run.model.encode(x[i : i + 1000])) for i in range(0, len(x), 1000)]
        codes.append((np.concatenate(h), images.labels))
        pixels.append((x.reshape(len(x), -1).astype(np.float32) / 255, images.labels))
    return {
        "test/error, %": linear_error(*codes),
        "test/error of pixels, %": linear_error(*pixels),
    }


def get_study(arg: str = ""):
    """Shares of masked pixels; label "masked" in per cent."""
    smoke = "smoke" in flags(arg, "smoke")
    runs = [
        {
            "@network": "one layer",
            "@masked, %": round(100 * v),
            "corrupt": ({"name": "mask", "ratio": v},) if v else (),
        }
        for v in (MASKED[::2] if smoke else MASKED)
    ]
    table3 = "Vincent et al. 2010, table 3, basic: three layers, fine-tuned"
    return Study(
        name="vincent2010",
        title="Vincent et al. 2010: a code for digits, and how much was masked",
        config=lambda: config(arg),
        runs=runs,
        measure=classified,
        columns=("test/error, %", "test/error of pixels, %", "test/psnr"),
        x="@masked, %",
        y="test/error, %",
        by="@network",
        baselines=(),
        published=[
            {"name": "SAE-3", "source": table3, "@masked, %": 0, "test/error, %": 3.46},
            {"name": "SDAE-3", "source": table3, "@masked, %": 10, "test/error, %": 2.84},
        ],
    )
