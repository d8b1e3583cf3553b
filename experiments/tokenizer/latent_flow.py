"""Flow matching (DiT) on the 32x32x4 latents of kl_f8: class-conditional samples of ImageNet.

    aejax train --config experiments/tokenizer/latent_flow.py --workdir runs/latent_flow \
        --config.objective.kwargs.autoencoder=runs/kl_f8
    aejax check --config experiments/tokenizer/latent_flow.py --topology v5e:4x4 --no-data 1281167

Question: how good are samples from the latents of this tokenizer (gFID)?

Reference: on the latents of SD-VAE SiT-XL/2 (675 M parameters, 7 M steps of 256) has gFID 8.61
without and 2.06 with guidance, DiT-XL/2 9.62 and 2.27 (RAE paper of 2025, arXiv 2510.11690). This
is the size B/2 (width 768, 12 blocks). "maskgit" trains MaskGIT on the codes of fsq_f16 instead.

Cost: not measured, never trained (no ImageNet, no accelerator).
"""

import fsq_f16
import kl_f8

from aejax.config import flags


def get_config(arg: str = ""):
    """`arg`: "smoke" for seconds on the bundled photographs; "maskgit" for MaskGIT on codes."""
    words = flags(arg, "smoke", "maskgit")
    smoke = "smoke" in words
    codes = "maskgit" in words
    c = (fsq_f16 if codes else kl_f8).get_config("plain,smoke" if smoke else "plain")
    prior = {"name": "flow_matching", "net": "dit", "patch": 2}
    if codes:
        prior = {"name": "maskgit"}
    prior |= {"width": 32, "depth": 1, "heads": 2} if smoke else {
        "width": 768, "depth": 12, "heads": 12}  # fmt: skip
    c.model.kwargs = {
        "autoencoder": c.model.to_dict(),
        "prior": prior,
        "classes": 0 if smoke else 1000,
    }
    c.model.name = "aejax.generation.latent:LatentModel"
    c.objective.name, c.objective.terms = "aejax.generation.objective:LatentPrior", {}
    c.objective.kwargs = {"autoencoder": ""}
    c.optim.b1, c.optim.b2, c.optim.ema = 0.9, 0.99, 0.9999
    c.optim.schedule = "constant"
    c.train.length = "3 steps" if smoke else "80 epochs"
    c.eval.metrics, c.eval.best = (), "-prior"
    return c
