"""VQ f16 on ImageNet: 256x256x3 -> 16x16 codes of a learned code book, 16,384 vectors of 8 numbers.

    aejax train --config experiments/tokenizer/vq_f16.py --workdir runs/vq_f16
    aejax check --config experiments/tokenizer/vq_f16.py --topology v5e:4x4 --no-data 1281167 \
        --config.objective.kwargs.lpips=random

Question: how well do 16x16 codes reconstruct an image (rFID)?

Reference: VQGAN f16 (Esser et al. 2021, arXiv 2012.09841) with 16,384 codes has rFID 4.98, with
1,024 codes 7.94 (both from memory). Code vectors of few numbers are from ViT-VQGAN (Yu et al. 2022,
arXiv 2110.04627).

Cost: not measured, never trained (no ImageNet, no accelerator); the small form is in README.md.
"""

from imagenet256 import imagenet, with_opponent

from aejax.config import flags, part


def get_config(arg: str = ""):
    """`arg`: "smoke" for seconds on the bundled photographs; "plain" without discriminator."""
    words = flags(arg, "smoke", "plain")
    smoke = "smoke" in words
    c = imagenet(smoke)
    widths = (8, 8, 8, 8, 8) if smoke else (128, 128, 256, 256, 512)
    c.model.latent = 16 if smoke else 256
    c.model.f_E = part("vqgan", widths=widths, depth=1 if smoke else 2)
    c.model.bottleneck = part("vq", codes_per_book=64 if smoke else 16_384, dim=8)
    c.model.f_D = part("vqgan", widths=widths, depth=1 if smoke else 2)
    c.objective.terms = {"commit": 0.25}
    if "plain" in words:
        c.objective.kwargs.adversarial = 0.0
        return c
    return with_opponent(c, smoke)
