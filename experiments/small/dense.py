"""784-64-784 made small: pruned, quantised, with half the channels, distilled; three seeds.

    aejax study experiments/small/dense.py --data-dir DATA

The textbook autoencoder of MNIST is trained for 12 epochs; each smaller one starts from it and is
trained for 6 more, and so is the one of full size that they are compared with ("trained on").
results/dense.json has the numbers, README.md the table.

Cost: 82 to 926 s a run (12 of the 27 runs, two cores shared with ten other processes).
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
    c.optim.lr = 5e-3
    c.train.length = "12 epochs"
    c.train.steps_per_dispatch = 25
    c.eval.batch = 500
    c.eval.metrics = ("psnr", "mse")
    if "smoke" in flags(arg, "smoke"):
        c.data.source = "bundled:digits"
        c.data.batch = 64
        c.train.length = "4 steps"
        c.train.steps_per_dispatch = 2
    return c


def smaller(start: str, half: str, narrow: dict, steps: int, length: str):
    """{name: overrides} of the models that start from the one in `start`; `half` is a file of it
    with half the channels, `narrow` what that changes in the config."""
    tuned = {"train.length": length, "optim.lr": 2e-3, "model.start": start}
    kwargs = {"sparsity": 0.8, "every": max(1, steps // 20)}
    halved = tuned | narrow | {"model.start": half}
    distilled = {
        "objective.name": "aejax.small.distil:Distil",
        "objective.kwargs": {"teacher": start, "outputs": 0.5},
    }
    return {
        "trained on": tuned,
        "80 % pruned, cubic": tuned | PRUNED | {"optim.kwargs": kwargs | {"end": steps // 2}},
        "int8": tuned | INT8,
        "half the channels": halved,
        "int8, not trained": tuned | INT8 | AS_IT_IS,
        "80 % pruned at once": tuned | PRUNED | {"optim.kwargs": kwargs},
        "half the channels, distilled": halved | distilled,
        "int4 weights": tuned | INT4,
    }


def study_of(
    name: str, large: str, config, arg: str, groups: tuple[str, ...], narrow: dict
) -> Study:
    """The study of one model.

    Args:
      large: what the model of full size is called.
      groups: what channels are removed of, see small/channels.py.
      narrow: overrides that give a config half of them; {} = those of the file with half.
    """
    smoke = "smoke" in flags(arg, "smoke")
    steps, length = (4, "4 steps") if smoke else (6 * 234, "6 epochs")

    def more(results, directory):
        """The smaller models of every seed, once the large ones are trained."""
        from aejax.loading import load
        from aejax.small.channels import without_channels

        runs = {}
        for result in results:
            if result["labels"]["model"] != large:
                continue
            start = directory / result["id"]
            half = directory / f"half-{result['id']}.safetensors"
            if not half.exists():
                without_channels(load(start), 0.5, groups).save(half)
            changes = narrow or widths_of(load(half).config)
            made = smaller(str(start), str(half), changes, steps, length)
            seed = result["overrides"]["seed"]
            for model, overrides in made.items():
                runs.setdefault(model, []).append({"seed": seed, "@model": model} | overrides)
        return [run for repeats in runs.values() for run in repeats]

    return Study(
        name=f"small-{name}",
        title=f"The {name} autoencoder made small",
        config=lambda: config(arg),
        runs=[run | {"@model": large} for run in seeds(1 if smoke else 3)],
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


def widths_of(config) -> dict:
    """The widths of a convolutional autoencoder as overrides."""
    return {f"model.{s}.widths": tuple(config.model[s].widths) for s in ("f_E", "f_D")}


def get_study(arg: str = ""):
    return study_of("dense", "784-64-784", get_config, arg, ("latent",), {"model.latent": 32})
