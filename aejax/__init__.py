"""aejax: image autoencoders in JAX and Flax, h = f_E(x), y = f_D(h).

The way of the data is the listing of the package:

    data/          a source of images -> batches, a function of (seed, step)
    corrupt/       x -> x_tilde
    nets/          f_E.py: x_tilde -> h, bottleneck/: h -> h_hat, f_D.py: h_hat -> y
    objective.py   what y is compared with, losses.py
    training/      step.py (the only one), loop.py (the only one), run.py around them;
                   evaluate.py: every example once, metrics/
    study/         many runs of one experiment, searches, workers
    report/        their tables, figures and page
    export/        a model as StableHLO, ONNX, a folder for a hub
    small/         a model with fewer channels, a pupil of a larger one
    engines/       a study on SLURM, GKE, TPU VMs, SkyPilot or this machine
    codec/ denoising/ generation/   the rooms: each adds to this, none replaces any of it
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Public names and where they live: importing aejax imports nothing heavy.
_PUBLIC = {
    "load": "aejax.loading:load",
    "Trained": "aejax.trained:Trained",
    "Result": "aejax.result:Result",
    "train": "aejax.training.run:train",
    "tune_cpu": "aejax.machine.allocator:tune_cpu",
    "codec": "aejax.codec",
    "denoise": "aejax.denoising.api:denoise",
    "register_pillow": "aejax.codec.pillow:register",
    "UserError": "aejax.errors:UserError",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'aejax' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    resolved = importlib.import_module(module)
    return getattr(resolved, attribute) if attribute else resolved
