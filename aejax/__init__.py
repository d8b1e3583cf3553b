"""aejax: image autoencoders in JAX and Flax, h = f_E(x), y = f_D(h).

Packages and modules, in the order of the data flow:

    data/          data sources, splits, batches as a function of (seed, step)
    corrupt/       corruptions x -> x_tilde
    nets/          f_E.py: x_tilde -> h, bottleneck/: h -> h_hat, f_D.py: h_hat -> y
    objective.py   the training objective; losses.py
    training/      step.py, loop.py, run.py: the training; evaluate.py, with metrics/
    study/         many runs of an experiment, searches, workers
    report/        tables, figures and page of a study
    export/        StableHLO, ONNX, folders for a hub
    small/         smaller models: pruning, low rank, distillation
    engines/       studies on SLURM, GKE, TPU VMs, SkyPilot or this machine
    codec/ denoising/ generation/   the tasks: models, objectives, commands
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Public names and their modules, which are imported on first use: `import aejax` is fast.
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
