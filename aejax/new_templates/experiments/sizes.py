"""A study: how much of a digit survives in k numbers, with and without the loss on edges?

aejax study experiments/sizes.py
"""

from first import get_config

from aejax.study import Study, grid, named, product, seeds

LOSSES = {
    "mse": {"objective.loss": {"mse": 1.0}},
    "mse + edges": {"objective.loss": {"mse": 1.0, "my_package.loss:edges": 0.1}},
}


def get_study(arg: str = "") -> Study:
    """`experiments/sizes.py:smoke` is the same in a few steps."""
    sizes = (4,) if arg == "smoke" else (4, 16)
    return Study(
        name="sizes",
        config=get_config(arg),
        runs=product(named("loss", LOSSES), grid({"model.latent": sizes}), seeds(2)),
        columns=("latent_size", "test/psnr", "test/my_package.metric:worst_pixel"),
        by="@loss",
    )
