"""VQ f16: 256x256x3 -> 16x16 codes of a learned book of 16,384 vectors of 8 numbers.

    aejax train --config experiments/tokenizer/vq_f16.py --workdir runs/vq_f16
    aejax check --config experiments/tokenizer/vq_f16.py --topology v5e:4x4 --no-data 1281167 \
        --config.objective.kwargs.lpips=random

Anchor: VQGAN f16 with 16,384 codes (Esser et al. 2021, arXiv 2012.09841), rFID 4.98, with 1,024
codes 7.94 (both from memory); few numbers per code are ViT-VQGAN's (Yu et al. 2022, arXiv
2110.04627). Never trained here: ImageNet is not here, and no accelerator. Cost: README.md
of this folder.
"""

from imagenet256 import imagenet, with_opponent

from aejax.config import flags, part


def get_config(arg: str = ""):
    """`arg` "smoke" shrinks it to seconds on the bundled photographs; "plain" has no opponent."""
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
