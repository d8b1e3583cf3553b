"""The parts that the tokenizers of this folder share: ImageNet at 256x256, losses, discriminator.

The data is a folder imagenet/ with train/ and val/ of class folders, of JPEG files or packed by
`aejax data pack` (docs/tpu-pods.md has the number of cores that each needs). The weights of LPIPS
are a file that you write, see aejax/metrics/lpips.py.
"""

from ml_collections import ConfigDict

from aejax.config import base


def imagenet(smoke: bool = False) -> ConfigDict:
    """The config without f_E, bottleneck and f_D: data, losses and optimiser.

    Args:
      smoke: three steps on the bundled photographs, without LPIPS, the discriminator from the
        second step.
    """
    c = base()
    c.task = "generate"
    c.data.source, c.data.split = "folder:imagenet/train", "all"
    c.data.eval_source, c.data.eval_split = "folder:imagenet/val", "all"
    c.data.size, c.data.crop, c.eval.crop = (256,), 256, 256
    c.data.channels, c.data.flip = 3, True
    c.data.cache, c.data.workers, c.data.on_bad = "stream", 32, "skip"
    c.data.batch, c.eval.batch = 256, 64
    c.objective.name = "aejax.generation.tokenizer:Tokenize"
    c.objective.loss = ConfigDict({"mae": 1.0})
    c.objective.kwargs = ConfigDict(
        {"perceptual": 1.0, "lpips": "lpips_vgg.safetensors", "adversarial": 0.5, "begin": 50_000}
    )
    c.optim.name, c.optim.lr, c.optim.b1, c.optim.b2 = "adam", 1e-4, 0.5, 0.9
    c.optim.warmup, c.optim.final_lr, c.optim.clip, c.optim.ema = "5000 steps", 0.1, 1.0, 0.999
    c.model.dtype = "bfloat16"
    c.train.length = "40 epochs"
    c.eval.every, c.eval.examples = "10000 steps", 5000
    c.eval.metrics, c.eval.best = ("psnr", "ssim"), "-lpips"
    c.checkpoint.every = "600 seconds"
    if smoke:
        c.data.source, c.data.eval_source = "bundled:photos", ""
        c.data.split, c.data.eval_split = "train", "test"
        c.data.cache, c.data.workers, c.data.size = "auto", 0, ()
        c.data.crop = c.eval.crop = 32
        c.data.batch, c.eval.batch, c.eval.examples = 8, 2, 2
        c.objective.kwargs.update({"perceptual": 0.0, "lpips": "", "begin": 1})
        c.model.dtype = "float32"
        c.optim.lr, c.optim.warmup, c.train.length = 1e-3, "1 steps", "3 steps"
        c.eval.every, c.eval.best = "", "psnr"
    return c


def with_opponent(c: ConfigDict, smoke: bool = False) -> ConfigDict:
    """Adds a patch discriminator to a config whose `model` is complete."""
    c.model.kwargs = {
        "autoencoder": c.model.to_dict(),
        "widths": (8, 8) if smoke else (64, 128, 256, 512),
    }
    c.model.name = "aejax.generation.adversarial:AutoEncoderWithOpponent"
    return c
