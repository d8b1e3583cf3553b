"""1-D tokens on ImageNet: 256x256x3 -> 128 codes of 4,096 values for the whole image (TiTok).

    aejax train --config experiments/tokenizer/vit_1d.py --workdir runs/vit_1d
    aejax check --config experiments/tokenizer/vit_1d.py --topology v5e:4x4 --no-data 1281167 \
        --config.objective.kwargs.lpips=random

Question: how well do 128 codes without a grid reconstruct an image (rFID)?

Reference: TiTok-S-128 (Yu et al. 2024, arXiv 2406.07550), rFID 1.71 with 128 tokens
(README_TiTok.md of bytedance/1d-tokenizer); its first stage of training predicts the codes of
another tokenizer, here there is one stage. "grid" has 16x16 codes, one per patch, as in ViT-VQGAN.

Cost: not measured, never trained (no ImageNet, no accelerator).
"""

from imagenet256 import imagenet, with_opponent

from aejax.config import flags, part


def get_config(arg: str = ""):
    """`arg`: "smoke" for seconds on the bundled photographs; "grid" for a code per patch; "plain"
    without discriminator."""
    words = flags(arg, "smoke", "plain", "grid")
    smoke = "smoke" in words
    c = imagenet(smoke)
    size = {"patch": 16, "width": 512, "depth": 8, "heads": 8, "registers": 4}
    if smoke:
        size |= {"width": 32, "depth": 1, "heads": 2}
    size["tokens"] = 0 if "grid" in words else 4 if smoke else 128
    c.model.latent = 16 if smoke else 256
    c.model.f_E = part("vit", **size)
    c.model.bottleneck = part("vq", codes_per_book=64 if smoke else 4096, dim=12)
    c.model.f_D = part("vit", **size)
    c.objective.terms = {"commit": 0.25}
    if "plain" in words:
        c.objective.kwargs.adversarial = 0.0
        return c
    return with_opponent(c, smoke)
