"""FSQ f16: 256x256x3 -> 16x16 codes of 15,360 values (8 x 8 x 8 x 6 x 5): no code book at all.

    aejax train --config experiments/tokenizer/fsq_f16.py --workdir runs/fsq_f16
    aejax check --config experiments/tokenizer/fsq_f16.py --topology v5e:4x4 --no-data 1281167 \
        --config.objective.kwargs.lpips=random

Anchor: FSQ (Mentzer et al. 2024, arXiv 2309.15505), whose MaskGIT on codes of FSQ and of VQ are
equally good on ImageNet at 256x256 (sampling FID 4.5 for both; from memory). Its levels for 2^14
are these. Beside it: vq_f16.py, of as many bits. Never trained here: ImageNet is not here, and no
accelerator. Cost: README.md of this folder.
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
    c.model.bottleneck = part("fsq", levels=(8, 8, 8, 6, 5))
    c.model.f_D = part("vqgan", widths=widths, depth=1 if smoke else 2)
    c.objective.terms = {}
    if "plain" in words:
        c.objective.kwargs.adversarial = 0.0
        return c
    return with_opponent(c, smoke)
