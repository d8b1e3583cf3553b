"""784-64-784 made small: pruned, quantised, with half the channels, distilled; three seeds.

    aejax study experiments/small/dense.py --data-dir DATA

The textbook autoencoder of MNIST is trained for 8 epochs; each smaller one starts from it and is
trained for 4 more, and so is the one of full size that they are compared with ("trained on").
results/dense/ has the table and the figures.
"""

from aejax.config import base, flags, part
from aejax.small.measure import cost
from aejax.study import Study, seeds

PRUNED = {"optim.name": "aejax.training.prune:pruned"}
AS_IT_IS = {"train.length": "1 steps", "optim.lr": 1e-12}
INT8 = {"model.quantise": {"weights": "int8", "activations": "int8"}}
INT4 = {"model.quantise": {"weights": "int4", "activations": "int8"}}


def get_config(arg: str = ""):
    c = base()
    c.data.source = "tfds:mnist"
    c.data.batch = 256
    c.model.latent = 64
    c.model.f_E = part("dense", hidden=(), code_activation="relu")
    c.model.f_D = part("dense", hidden=(), output_activation="sigmoid")
    c.optim.lr = 2e-3
    c.train.length = "8 epochs"
    c.train.steps_per_dispatch = 25
    c.eval.batch = 500
    if "smoke" in flags(arg, "smoke"):
        c.data.source = "bundled:digits"
        c.data.batch = 64
        c.train.length = "4 steps"
        c.train.steps_per_dispatch = 2
    return c


def smaller(start: str, half: str, steps: int, length: str):
    """{name: overrides} of the models that start from the one in `start`; `half` is a file of it
    with half the channels."""
    tuned = {"train.length": length, "optim.lr": 1e-3, "model.start": start}
    kwargs = {"sparsity": 0.8, "every": max(1, steps // 20)}
    halved = tuned | {"model.latent": 32, "model.start": half}
    return {
        "trained on": tuned,
        "80 % pruned at once": tuned | PRUNED | {"optim.kwargs": kwargs},
        "80 % pruned, cubic": tuned | PRUNED | {"optim.kwargs": kwargs | {"end": steps // 2}},
        "80 % pruned, cubic, each layer": tuned
        | PRUNED
        | {"optim.kwargs": kwargs | {"end": steps // 2, "scope": "layer"}},
        "int8, not trained": tuned | INT8 | AS_IT_IS,
        "int8": tuned | INT8,
        "int4 weights, not trained": tuned | INT4 | AS_IT_IS,
        "int4 weights": tuned | INT4,
        "half the channels": halved,
        "half the channels, distilled": halved
        | {
            "objective.name": "aejax.small.distil:Distil",
            "objective.kwargs": {"teacher": start, "outputs": 0.5},
        },
    }


def get_study(arg: str = ""):
    smoke = "smoke" in flags(arg, "smoke")
    steps, length = (4, "4 steps") if smoke else (4 * 234, "4 epochs")

    def more(results, directory):
        """The smaller models of every seed, once the large ones are trained."""
        from aejax.loading import load
        from aejax.small.channels import without_channels

        runs = []
        for result in results:
            if result["labels"]["model"] != "784-64-784":
                continue
            start = directory / result["id"]
            half = directory / f"half-{result['id']}.safetensors"
            if not half.exists():
                without_channels(load(start), 0.5, ("latent",)).save(half)
            seed = result["overrides"]["seed"]
            runs += [
                {"seed": seed, "@model": name} | overrides
                for name, overrides in smaller(str(start), str(half), steps, length).items()
            ]
        return runs

    return Study(
        name="small-dense",
        title="784-64-784 made small",
        config=lambda: get_config(arg),
        runs=[run | {"@model": "784-64-784"} for run in seeds(1 if smoke else 3)],
        search=more,
        measure=cost,
        repeats=("seed",),
        columns=(
            "test/mse", "test/psnr", "test/mse in float16", "bytes", "stored as", "parameters",
            "weights that are not zero", "kMAC/pixel", "latency p50, ms", "latency p99, ms",
            "images/s", "seconds.total",
        ),
        reference="trained on",
        pareto=(("bytes", "test/mse"), ("kMAC/pixel", "test/mse")),
    )  # fmt: skip
