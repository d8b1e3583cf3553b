"""784-64-784 on Fashion-MNIST: how fast is the textbook autoencoder?

    aejax train --config experiments/reconstruct/dense_784.py --workdir runs/dense_784

One hidden layer of 64 units, batch 32, Adam, 60,000 examples per epoch; log.jsonl has
examples_per_sec. Comparison with Keras and PyTorch: experiments/benchmarks/dense_epoch.md.

Cost: about a minute for ten epochs on 2 cores.
"""

from aejax.config import base, flags, part


def get_config(arg: str = ""):
    c = base()
    c.data.source = "tfds:fashion_mnist"
    c.data.batch = 32
    c.model.latent = 64
    c.model.f_E = part("dense", hidden=(), code_activation="relu")
    c.model.f_D = part("dense", hidden=(), output_activation="sigmoid")
    c.train.length = "10 epochs"
    c.train.steps_per_dispatch = 25
    c.eval.batch = 500
    if "smoke" in flags(arg, "smoke"):
        c.data.source = "bundled:digits"
        c.train.length = "4 steps"
        c.train.steps_per_dispatch = 2
    return c
