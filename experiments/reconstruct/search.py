"""Random search against TPE on Fashion-MNIST: which finds better hyperparameters in 20 runs?

    aejax study experiments/reconstruct/search.py:SEED --data-dir DATA

Both methods choose size of h, width, learning rate and weight decay of the dense autoencoder, in 20
runs of 3 epochs each; the defaults of aejax are run with each size of h. The runs train on nine
tenths of the training images and are compared on the last tenth, so the test split is not used.
Needs optuna.
Arguments: the seed of both methods (0), "smoke".

The report ends with the best run of each method, and the distance of the defaults from the best.

Cost: 15 minutes per seed on one core of an AMD EPYC, 25 to 35 without AVX-512. Results: README.md
beside this file.
"""

from aejax.config import base, flags, part
from aejax.study import Study
from aejax.study.search import TPE, best, choice, log_uniform, random

SIZES = (16, 32, 64)
WIDTH = "model.kwargs.width"  # of the first layer of f_E; the second has half; f_D is symmetric
DEFAULT = 1024


def space(sizes=SIZES):
    """The search space."""
    return {
        "model.latent": choice(*sizes),
        WIDTH: choice(128, 256, 512, 1024),
        "optim.lr": log_uniform(1e-4, 1e-2),
        "optim.weight_decay": log_uniform(1e-6, 1e-1),
    }


def get_config(arg: str = ""):
    c = base()
    c.data.source = "tfds:fashion_mnist"
    c.data.split, c.data.eval_split = "train[:90%]", "train[90%:]"
    c.data.batch = 128
    c.model.f_E, c.model.f_D = part("dense"), part("dense")
    c.model.kwargs.width = DEFAULT
    c.optim.name = "adamw"
    c.train.length = "3 epochs"
    c.train.steps_per_dispatch = 4
    c.eval.batch = 500
    c.eval.metrics = ("mse", "psnr")
    if "smoke" in flags(arg, "smoke", "N"):
        c.data.source, c.data.split, c.data.eval_split = "bundled:digits", "train", "test"
        c.data.batch, c.model.kwargs.width, c.train.length = 64, 16, "4 steps"
        c.train.devices = 1
    return c


def train(config, workdir, **kwargs):
    """aejax.train, with f_E and f_D of the width in model.kwargs."""
    from aejax.training import run

    width = config.model.kwargs.width
    config.model.f_E = part("dense", hidden=(width, width // 2))
    config.model.f_D = part("dense", hidden=(width // 2, width))
    return run.train(config, workdir, **kwargs)


def compared(results, directory):
    """A section of the report: the best run of each method, and the defaults at its size of h."""
    methods = {m: [r for r in results if r["labels"]["by"] == m] for m in ("random", "TPE")}
    best_runs = {m: best(runs, "test/mse", False) for m, runs in methods.items() if runs}
    best_run = best(list(best_runs.values()), "test/mse", False)
    size = best_run["overrides"]["model.latent"]
    default = next(r for r in results if r["labels"]["by"] == "default"
                   and r["overrides"]["model.latent"] == size)  # fmt: skip
    words = [
        f"{method}: {r['metrics']['test/mse']:.5f} with "
        + ", ".join(f"{k.rpartition('.')[2]} {v:g}" for k, v in r["overrides"].items())
        for method, r in best_runs.items()
    ]
    excess = default["metrics"]["test/mse"] / best_run["metrics"]["test/mse"] - 1
    words.append(f"the defaults with latent {size}: {excess:+.1%} of the best mean squared error")
    return [{"title": "The best", "text": "; ".join(words) + "."}]


def get_study(arg: str = ""):
    words = flags(arg, "smoke", "N")
    smoke, seed = "smoke" in words, next((int(w) for w in words if w.isdigit()), 0)
    n, sizes = (2, SIZES[:1]) if smoke else (20, SIZES)
    defaults = [{"@by": "default", "model.latent": k} for k in sizes]
    drawn = [{"@by": "random", **run} for run in random(space(sizes), n, seed)]
    tpe = TPE(
        space(sizes), n, "test/mse", False, seed, startup=max(1, n // 3), fixed={"@by": "TPE"}
    )
    return Study(
        name=f"search-{seed}",
        title="Random search against TPE on Fashion-MNIST",
        config=lambda: get_config(arg),
        runs=defaults + drawn,
        search=tpe,
        train=train,
        columns=("parameters", "test/mse", "test/psnr", "seconds.total"),
        x="optim.lr",
        y="test/mse",
        by="@by",
        baselines=(),
        finish=compared,
    )
