"""Which log-likelihood do VAEs reach on MNIST? Three priors, and a hierarchical VAE.

    aejax train --config experiments/generate/likelihood.py:vae --workdir runs/nll-vae
    python experiments/generate/likelihood.py runs/nll-vae --samples 500 --out runs/nll-vae/nll.json

Arguments: vae | iwae | flow (a coupling flow is the prior, learned with it) | vamp | ladder,
dynamic (trained on fresh binary draws), start=DIR (continue from the weights of that run at half
the learning rate), smoke.

Static binarisation depends on each image's pixels (see objective.binarise); Larochelle's files are
another sample of the same distribution. Every model is measured on the statically binarised test
images.

Cost on one core of an AMD EPYC: "flow" 39 minutes of training and 38 of importance sampling with
500 samples, "ladder" 50 and 16 (100 samples). Results: README.md.
"""

import argparse
import json
import pathlib
import time

from aejax.config import base, flags, part

WORDS = ("vae", "flow", "vamp", "ladder", "dynamic", "iwae")


def get_config(arg: str = ""):
    words = flags(arg, *WORDS, "smoke", "start=")
    smoke = "smoke" in words
    c = base()
    c.task = "generate"
    c.data.source, c.data.batch, c.eval.batch = "tfds:mnist", 128, 500
    c.objective.name = "aejax.generation.objective:Evidence"
    c.objective.terms = {"kl": 1.0}
    c.objective.kwargs = {
        "likelihood": "bernoulli",
        "binarise": "dynamic" if "dynamic" in words else "static",
        "samples": 5 if "iwae" in words else 1,
    }
    c.optim.lr, c.optim.warmup, c.optim.clip, c.optim.ema = 1e-3, "200 steps", 5.0, 0.999
    c.train.length = "20 epochs"
    c.eval.metrics, c.eval.best = (), "-bound"
    widths = (4, 8) if smoke else (32, 64)
    c.model.latent = 4 if smoke else 40
    c.model.f_E = part("conv", widths=widths, depth=1)
    c.model.bottleneck = part("gaussian")
    c.model.f_D = part(
        "aejax.generation.likelihood:LikelihoodDecoder",
        decoder="conv",
        likelihood="bernoulli",
        arguments={"widths": widths, "depth": 1},
    )
    if "flow" in words:
        prior = {"name": "coupling", "layers": 2 if smoke else 6, "width": 8 if smoke else 128}
        c.model.kwargs = {"autoencoder": c.model.to_dict(), "prior": prior, "joint": True}
        c.model.name = "aejax.generation.latent:LatentModel"
    if "vamp" in words:
        c.model.kwargs = {"autoencoder": c.model.to_dict(), "components": 5 if smoke else 200}
        c.model.name = "aejax.generation.vae:VampAutoEncoder"
    if "ladder" in words:
        small = {"sides": (1, 4), "blocks": (1, 1), "widths": (8, 8), "zdims": (2, 2), "fine": 4}
        c.model.kwargs = small if smoke else {}
        c.model.name = "aejax.generation.vae:HierarchicalVAE"
        c.data.batch, c.train.length = 32, "12 epochs"  # more steps for the same time
        if "iwae" in words:
            c.data.batch, c.train.length = 16, "9000 steps"
    start = next((w[6:] for w in words if w.startswith("start=")), "")
    if start:
        c.model.start, c.optim.lr = start, 5e-4
    if smoke:
        c.data.source, c.data.batch, c.eval.batch = "bundled:digits", 32, 64
        c.train.length, c.optim.warmup = "3 steps", "1 steps"
    return c


def main() -> None:
    import numpy as np

    from aejax import load
    from aejax.data.decoded import decoded
    from aejax.data.source import open_source
    from aejax.generation.nll import importance_nll
    from aejax.machine.provenance import provenance

    parser = argparse.ArgumentParser()
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--n", type=int, default=10000)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    trained = load(args.workdir)
    test = decoded(open_source(trained.config.data.source, "test"))
    images = np.asarray(test.data).reshape(-1, *test.source.shape)[: args.n]
    begun = time.perf_counter()
    result = importance_nll(
        trained.model,
        trained.variables,
        images,
        trained.config.objective.kwargs.likelihood,
        binarised="static",
        samples=args.samples,
        batch=20,  # a third faster than 100 on a CPU: so many maps stay in its cache
    )
    print(json.dumps(result))
    if args.out:
        run = json.loads((args.workdir / "result.json").read_text())
        result |= {k: run[k] for k in ("config", "steps", "data")} | {
            "seconds": {"train": run["seconds"]["total"], "nll": time.perf_counter() - begun},
            "trained by": run["command"],
            **provenance(),
        }
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
