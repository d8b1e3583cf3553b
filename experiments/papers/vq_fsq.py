"""van den Oord et al. 2017 against Mentzer et al. 2023: learned codes or a fixed grid?

    aejax study experiments/papers/vq_fsq.py --data-dir DATA

A. van den Oord, O. Vinyals, K. Kavukcuoglu, "Neural discrete representation learning", NeurIPS 2017
(arXiv:1711.00937); F. Mentzer, D. Minnen, E. Agustsson, M. Tschannen, "Finite scalar quantization:
VQ-VAE made simple", ICLR 2024 (arXiv:2309.15505), figure 3: with a small vocabulary VQ is a little
better, with a large one FSQ, because it uses all of its codes without being made to. Their figures
are of ImageNet and FID; beside ours stand those of a benchmark that measures PSNR: CelebA at 64
pixels, 512 codes, 500,000 steps of batch 256 (xyfJASON/visual-tokenizer-pytorch).

Scaled down: Fashion-MNIST, a convolutional autoencoder of 0.1 million weights with 7x7 codes, 4
epochs. Vocabularies of 64, 240 and 1,000 codes. VQ learns its codes by moving averages with and
without restarts of dead ones ("without" is the 2017 paper's); the levels of FSQ are the paper's.

    used   share of the vocabulary that occurs in the codes of the test split

Cost: about 22 s an epoch and 13 minutes in all on 2 quiet cores. Results: README.md beside this
file.
"""

import pathlib

import numpy as np
from ml_collections import ConfigDict

from aejax.config import flags, load_module, part
from aejax.study import Study

SWEEP = load_module(str(pathlib.Path(__file__).parents[1] / "reconstruct" / "latent_sweep.py"))
LEVELS = {64: (8, 8), 240: (8, 6, 5), 1000: (8, 5, 5, 5)}
DIM = 8  # numbers per code vector of VQ, and of h per position
COMMIT = 0.25 / (49 * DIM)  # the paper's 0.25, of means as the squared error is


def config(arg: str = ""):
    """The convolutional autoencoder of latent_sweep.py with h at a quarter of the resolution."""
    c = SWEEP.get_config(arg)
    smoke = "smoke" in flags(arg, "smoke")
    c.model.init, c.model.latent = "random", DIM
    net = {"widths": (4,) if smoke else (16, 32), "spatial": True}
    c.model.f_E, c.model.f_D = part("conv", **net), part("conv", **net)
    c.data.batch = 64 if smoke else 128
    c.eval.metrics = ("psnr", "mse")
    if smoke:
        c.train.length, c.train.devices = "4 steps", 1
    return c


def used_codes(run):
    """The share of codes that the test split uses."""
    import jax
    import jax.numpy as jnp

    from aejax.data.pipeline import make_pipeline
    from aejax.report.pca import test_images

    @jax.jit
    def codes(x):
        return run.model.model.apply(
            run.model.variables, x.astype(jnp.float32) / 255,
            method=lambda m, x: m.bottleneck.codes(m.f_E(x, None, False)),
        )  # fmt: skip

    pipeline = make_pipeline(run.config, training=False, data_dir=run.data_dir)
    seen = [np.unique(codes(x)) for x, _ in test_images(pipeline)]
    pipeline.close()
    size = len(np.unique(np.concatenate(seen)))
    spec = run.config.model.bottleneck
    vocabulary = spec.get("codes_per_book") or int(np.prod(spec.levels))
    return {"test/used": size / vocabulary}


def get_study(arg: str = ""):
    """Vocabularies and ways."""
    commit = {"objective.terms": ConfigDict({"commit": COMMIT})}
    runs = []
    smoke = "smoke" in flags(arg, "smoke")
    for size, levels in list(LEVELS.items())[: 1 if smoke else None]:
        vq = {"codes_per_book": size, "dim": DIM}
        ways = {
            "VQ": commit | {"model.bottleneck": part("vq", restart=0.0, **vq)},
            "VQ, restarts": commit | {"model.bottleneck": part("vq", **vq)},
            "FSQ": {"model.bottleneck": part("fsq", levels=levels)},
        }
        if smoke:
            del ways["VQ"]
        runs += [{"@way": way, "@codes": size, **o} for way, o in ways.items()]
    source = "CelebA-64, xyfJASON/visual-tokenizer-pytorch docs/benchmark-celeba64.md"
    return Study(
        name="vq_fsq",
        title="VQ against FSQ: learned codes or a fixed grid?",
        config=lambda: config(arg),
        runs=runs,
        measure=used_codes,
        columns=("parameters", "test/psnr", "test/used"),
        x="@codes",
        y="test/psnr",
        by="@way",
        baselines=(),
        published=[
            {"name": name, "source": source, "@codes": 512, "test/psnr": psnr}
            for name, psnr in (
                *(("VQ 512x4", 32.21), ("VQ 512x4, moving averages", 32.31)),
                *(("VQ 512x64", 31.55), ("VQ 512x64, moving averages", 32.07)),
                ("FSQ (8, 8, 8)", 30.85),
            )
        ],
    )
