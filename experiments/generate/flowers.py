"""Flowers at 64x64: a spatial KL autoencoder and flow matching (DiT) over its 8x8 maps.

    aejax train --config experiments/generate/flowers.py:ae --workdir runs/flowers-ae
    aejax train --config experiments/generate/flowers.py:prior --workdir runs/flowers \
        --config.objective.kwargs.autoencoder=runs/flowers-ae
    aejax sample --workdir runs/flowers -o grid.png

900 pictures of 12 classes: far too few for a prior that does not memorise; the check
(metrics.memorisation on the latents' decoded samples) belongs beside every grid. Results: none
committed yet.
"""

from aejax.config import base, part


def get_config(arg: str = ""):
    words = arg.replace(",", " ").split()
    smoke = "smoke" in words
    c = base()
    c.task = "generate"
    c.data.source = "folder:train/flowers64"
    c.data.flip = True
    c.data.batch, c.eval.batch = 32, 64
    c.model.latent = 4
    widths = (8, 8, 8) if smoke else (32, 64, 96)
    c.model.f_E = part("conv", widths=widths, depth=1, spatial=True)
    c.model.bottleneck = part("gaussian")
    c.model.f_D = part("conv", widths=widths, depth=2, spatial=True)
    c.objective.name = "aejax.generate.objective:Evidence"
    c.objective.terms = {"kl": 0.05}
    c.objective.kwargs = {"likelihood": "normal", "arguments": {"sigma": 0.1}}
    c.optim.lr, c.optim.warmup, c.optim.clip, c.optim.ema = 1e-3, "200 steps", 1.0, 0.999
    c.train.length = "300 epochs"
    if smoke:
        c.data.source, c.data.flip, c.data.batch, c.eval.batch = "bundled:digits", False, 32, 64
        c.train.length, c.optim.warmup = "3 steps", "1 steps"
    if "prior" in words:
        c.model.kwargs = {
            "autoencoder": c.model.to_dict(),
            "prior": {"name": "flow_matching", "net": "dit", "width": 16 if smoke else 160,
                      "depth": 1 if smoke else 6},
            "classes": 10 if smoke else 12,
        }  # fmt: skip
        c.model.name = "aejax.generate.latent:LatentModel"
        c.objective.name, c.objective.terms = "aejax.generate.objective:LatentPrior", {}
        c.objective.kwargs = {"autoencoder": ""}
        c.eval.metrics, c.eval.best = (), "-prior"
        c.train.length = "3 steps" if smoke else "600 epochs"
    return c
