"""FSQ f16 on ImageNet: 256x256x3 -> 16x16 codes of 15,360 values (8 x 8 x 8 x 6 x 5), no code book.

    aejax train --config experiments/tokenizer/fsq_f16.py --workdir runs/fsq_f16
    aejax check --config experiments/tokenizer/fsq_f16.py --topology v5e:4x4 --no-data 1281167 \
        --config.objective.kwargs.lpips=random

Question: is FSQ as good as a learned code book of as many bits (vq_f16.py)?

Reference: FSQ (Mentzer et al. 2024, arXiv 2309.15505), where MaskGIT has a sampling FID of 4.5 on
ImageNet at 256x256 with codes of FSQ and of VQ (from memory). The levels are those of the paper for
2^14 codes.

Cost: not measured, never trained (no ImageNet, no accelerator).
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
    c.model.bottleneck = part("fsq", levels=(8, 8, 8, 6, 5))
    c.model.f_D = part("vqgan", widths=widths, depth=1 if smoke else 2)
    c.objective.terms = {}
    if "plain" in words:
        c.objective.kwargs.adversarial = 0.0
        return c
    return with_opponent(c, smoke)
