"""A study: how well do k numbers reconstruct a digit, with and without the loss on edges?

    aejax study experiments/sizes.py

8 runs: two losses, two latent sizes, two seeds.
"""

from first import get_config

from aejax.study import Study, grid, named, product, seeds

LOSSES = {
    "mse": {"objective.loss": {"mse": 1.0}},
    "mse + edges": {"objective.loss": {"mse": 1.0, "my_package.loss:edges": 0.1}},
}


def get_study(arg: str = "") -> Study:
    """The study; `experiments/sizes.py:smoke` trains a few steps per run."""
    sizes = (4,) if arg == "smoke" else (4, 16)
    return Study(
        name="sizes",
        config=get_config(arg),
        runs=product(named("loss", LOSSES), grid({"model.latent": sizes}), seeds(2)),
        columns=("latent_size", "test/psnr", "test/my_package.metric:worst_pixel"),
        by="@loss",
    )
