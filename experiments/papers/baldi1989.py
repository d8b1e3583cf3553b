"""Baldi and Hornik 1989: a linear autoencoder has no false minima, and ends in PCA's subspace.

    aejax study experiments/papers/baldi1989.py --data-dir DATA

P. Baldi and K. Hornik, "Neural networks and principal component analysis: learning from examples
without local minima", Neural Networks 2 (1989) 53-58: of all critical points of the squared error
only the projection on the first p principal components is a minimum; all others (projections on
other components) are saddles. The paper has a proof, and no experiments. Here it is measured: one
matrix for f_E and one for f_D, random initialisation, Fashion-MNIST, p = 2, 8 and 32, 2 seeds. A
single minimum does not mean fast convergence: optimisers differ in how fast they leave the saddles
(gradient descent with momentum at 0.03 had 6 times PCA's loss after 10 epochs with p = 32, and at
0.3 it diverged; it is left out).

    loss over PCA's   squared error on the training set (outputs not clipped) over that of PCA;
                      the theorem says 1
    shared subspace   |U' Q|^2 / p of orthonormal bases U of PCA and Q of f_D; the theorem says 1

Scaled down: minibatches of 500 and 20 epochs of a falling rate in place of the limit of gradient
descent.

Cost: about 3 minutes on 2 quiet cores. Results: README.md beside this file.
"""

import numpy as np

from aejax.config import base, flags, part
from aejax.study import Study, grid, named, product, seeds

OPTIMISERS = {
    "Adam": {"optim.name": "adam", "optim.lr": 1e-2},
    "Muon": {"optim.name": "muon", "optim.lr": 2e-2},
}


def config(arg: str = ""):
    """A linear autoencoder from a random start; "smoke" on the digits."""
    c = base()
    c.data.source = "tfds:fashion_mnist"
    c.data.batch = 500
    c.model.f_E = c.model.f_D = part("linear")
    c.optim.warmup = "100 steps"
    c.train.length = "20 epochs"
    c.train.steps_per_dispatch = 10
    c.eval.batch = 500
    c.eval.metrics = ("mse", "psnr")
    if "smoke" in flags(arg, "smoke"):
        c.data.source, c.data.batch, c.eval.batch = "bundled:digits", 64, 60
        c.train.length, c.optim.warmup, c.train.devices = "10 steps", "0 steps", 1
    return c


def against_pca(run):
    """How far the training loss and f_D's subspace are from PCA's."""
    from aejax.data.pipeline import make_pipeline
    from aejax.nets.linear import Components, to_rows
    from aejax.report.pca import training_images

    params = run.model.variables["params"]
    pipeline = make_pipeline(run.config, training=True, data_dir=run.data_dir)
    rows = to_rows(training_images(pipeline), 0)
    pipeline.close()
    p = run.config.model.latent
    components = Components(rows, p)
    f_E, f_D = ({k: np.asarray(v) for k, v in params[n]["linear"].items()} for n in ("f_E", "f_D"))
    y = (rows @ f_E["kernel"] + f_E["bias"]) @ f_D["kernel"] + f_D["bias"]
    ours, floor = (np.mean((rows - z) ** 2, dtype=np.float64) for z in
                   (y, components.project(rows, p)))  # fmt: skip
    q = np.linalg.qr(f_D["kernel"].T)[0]
    return {
        "train/loss over PCA's": float(ours / floor),
        "train/shared subspace": float(np.sum((components.basis.T @ q) ** 2) / p),
    }


def get_study(arg: str = ""):
    """Sizes of h, optimisers, seeds."""
    smoke = "smoke" in flags(arg, "smoke")
    return Study(
        name="baldi1989",
        title="Baldi and Hornik 1989: does a linear autoencoder reach PCA?",
        config=lambda: config(arg),
        runs=product(
            named("optimiser", OPTIMISERS),
            grid({"model.latent": (4,) if smoke else (2, 8, 32)}),
            seeds(1 if smoke else 2),
        ),
        measure=against_pca,
        columns=("latent_size", "train/loss over PCA's", "train/shared subspace", "test/mse"),
        by="@optimiser",
        y="train/loss over PCA's",
        published=[
            {
                "name": "theorem",
                "source": "Baldi and Hornik 1989: no minimum but PCA's subspace",
                "train/loss over PCA's": 1.0,
                "train/shared subspace": 1.0,
            }
        ],
    )
