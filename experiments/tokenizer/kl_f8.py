"""KL f8: 256x256x3 -> 32x32x4 numbers with a small KL term, what latent diffusion runs on.

    aejax train --config experiments/tokenizer/kl_f8.py --workdir runs/kl_f8
    aejax check --config experiments/tokenizer/kl_f8.py --topology v5e:4x4 --no-data 1281167 \
        --config.objective.kwargs.lpips=random

Anchor: SD-VAE f8 (Rombach et al. 2022, arXiv 2112.10752), rFID 0.62 on ImageNet 256x256 as the RAE
paper of 2025 (arXiv 2510.11690) lists it. It was trained on other pictures and for longer. Never
trained here: ImageNet is not here, and no accelerator. Cost: README.md of this
folder.
"""

from imagenet256 import imagenet, with_opponent

from aejax.config import flags, part


def get_config(arg: str = ""):
    """`arg` "smoke" shrinks it to seconds on the bundled photographs; "plain" has no opponent."""
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
