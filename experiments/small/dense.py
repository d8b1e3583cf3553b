"""What do pruning, quantisation and half the channels cost 784-64-784 on MNIST? Three seeds.

    aejax study experiments/small/dense.py --data-dir DATA

The textbook autoencoder is trained for 12 epochs. Each smaller one starts from it and is trained
for 6 more, and so is the model of full size that they are compared with ("trained on"). README.md
has the table, results/dense.json the numbers.

Cost: 82 to 926 s per run (12 of the 27 runs; two cores shared with ten other processes).
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
    """{name: overrides} of the smaller models.

    Args:
      start: run folder of the large model.
      half: file with its half channels pruned away; `narrow`: overrides for that width.
      steps, length: of the training, as a number and for train.length.
    """
    trained_on = {"train.length": length, "optim.lr": 2e-3, "model.start": start}
    kwargs = {"sparsity": 0.8, "every": max(1, steps // 20)}
    halved = trained_on | narrow | {"model.start": half}
    distilled = {
        "objective.name": "aejax.small.distil:Distil",
        "objective.kwargs": {"teacher": start, "outputs": 0.5},
    }
    return {
        "trained on": trained_on,
        "80 % pruned, cubic": trained_on | PRUNED | {"optim.kwargs": kwargs | {"end": steps // 2}},
        "int8": trained_on | INT8,
        "half the channels": halved,
        "int8, not trained": trained_on | INT8 | AS_IT_IS,
        "80 % pruned at once": trained_on | PRUNED | {"optim.kwargs": kwargs},
        "half the channels, distilled": halved | distilled,
        "int4 weights": trained_on | INT4,
    }


def study_of(
    name: str, large: str, config, arg: str, groups: tuple[str, ...], narrow: dict
) -> Study:
    """The study of one model.

    Args:
      name: of the study. large: name of the model of full size.
      config: a function arg -> config of the large model.
      groups: what is pruned, see aejax/small/channels.py.
      narrow: overrides for half the channels; {} = the widths of the pruned model.
    """
    smoke = "smoke" in flags(arg, "smoke")
    steps, length = (4, "4 steps") if smoke else (6 * 234, "6 epochs")

    def smaller_runs(results, directory):
        """The runs of the smaller models of every seed, once the large ones are trained."""
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
            by_name = smaller(str(start), str(half), changes, steps, length)
            seed = result["overrides"]["seed"]
            for model, overrides in by_name.items():
                runs.setdefault(model, []).append({"seed": seed, "@model": model} | overrides)
        return [run for repeats in runs.values() for run in repeats]

    return Study(
        name=f"small-{name}",
        title=f"The {name} autoencoder made small",
        config=lambda: config(arg),
        runs=[run | {"@model": large} for run in seeds(1 if smoke else 3)],
        search=smaller_runs,
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
