"""KL f8 on ImageNet: 256x256x3 -> 32x32x4 numbers with a small KL term, as in latent diffusion.

    aejax train --config experiments/tokenizer/kl_f8.py --workdir runs/kl_f8
    aejax check --config experiments/tokenizer/kl_f8.py --topology v5e:4x4 --no-data 1281167 \
        --config.objective.kwargs.lpips=random

Question: what reconstruction quality (rFID) does this autoencoder reach?

Reference: SD-VAE f8 (Rombach et al. 2022, arXiv 2112.10752), rFID 0.62 on ImageNet 256x256
according to the RAE paper of 2025 (arXiv 2510.11690); it was trained on other data and for longer.

Cost: not measured, never trained (no ImageNet, no accelerator); the small form is in README.md.
"""

from imagenet256 import imagenet, with_opponent

from aejax.config import flags, part


def get_config(arg: str = ""):
    """`arg`: "smoke" for seconds on the bundled photographs; "plain" without discriminator."""
    words = flags(arg, "smoke", "plain")
    smoke = "smoke" in words
    c = imagenet(smoke)
    widths = (8, 8, 8, 8) if smoke else (128, 256, 512, 512)
    c.model.latent = 4
    c.model.f_E = part("vqgan", widths=widths, depth=1 if smoke else 2)
    c.model.bottleneck = part("gaussian")
    c.model.f_D = part("vqgan", widths=widths, depth=1 if smoke else 2)
    c.objective.terms = {"kl": 1e-6}
    if "plain" in words:
        c.objective.kwargs.adversarial = 0.0
        return c
    return with_opponent(c, smoke)
