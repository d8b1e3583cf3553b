"""PCA as a model of the same number of latents, in closed form, measured as models are.

PCA of whole images is the best linear f_E and f_D for squared error (Baldi and Hornik, 1989); for
spatial latents the same of patches, the Karhunen-Loeve transform. Outputs are clipped to [0, 1];
figures are means over the test images of each image's own figure.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from aejax.errors import UserError
from aejax.nets.linear import Components, from_rows, to_rows

if TYPE_CHECKING:
    from aejax.data.pipeline import Pipeline

EXAMPLES = 20_000  # training images from which crops are drawn, or which are read, at most
CROPPED = 1 << 26  # numbers in those crops, at most: 256 MiB as float32
KEPT = 16  # first test images whose outputs are kept as pictures


@dataclasses.dataclass
class Baseline:
    """A baseline of one latent size, measured.

    Attributes:
      metrics: {"test/psnr": mean over the test images, ...}.
      parameters: numbers that are fitted.
      pictures: the first outputs, uint8 [h, w, c].
    """

    metrics: dict[str, float]
    parameters: int
    pictures: list[np.ndarray]


def pca(
    train: np.ndarray,
    test: Iterator[tuple[UInt8[np.ndarray, "b h w c"], np.ndarray]],
    latents: Sequence[int],
    metrics: Sequence[str] = ("psnr", "ssim", "mse"),
    patch: int = 0,
) -> dict[int, Baseline]:
    """PCA of `train` [n, h, w, c], measured on batches (images, mask) of `test`.

    Args:
      latents: numbers per image, or per patch x patch block.

    Returns:
      for each of `latents` {"metrics": {"test/psnr": ...}, "parameters": int, "y": [16, h, w, c]}.
    """
    import jax

    from aejax.metrics.image import METRICS
    from aejax.registry import lookup

    functions = {name: jax.jit(lookup(name, METRICS, "metric")) for name in metrics}
    rows = to_rows(train, patch)
    components = Components(rows, max(latents))
    d = rows.shape[1]
    del rows
    sums = {k: dict.fromkeys(metrics, 0.0) for k in latents}
    shown: dict[int, list[np.ndarray]] = {k: [] for k in latents}
    count = 0.0
    for images, mask in test:
        x = images.astype(np.float32) / 255
        rows = to_rows(x, patch)
        for k in latents:
            y = np.clip(from_rows(components.project(rows, k), x.shape, patch), 0, 1)
            for name, f in functions.items():
                sums[k][name] += float((np.asarray(f(x, y), np.float64) * mask).sum())
            room = KEPT - len(shown[k])
            shown[k] += list(np.round(y[mask > 0][:room] * 255).astype(np.uint8))
        count += float(mask.sum())
    if not count:
        raise UserError("the evaluation split has no examples; set data.eval_split")
    return {
        k: Baseline(
            {f"test/{name}": total / count for name, total in sums[k].items()},
            d * min(k, components.k) + d,
            shown[k],
        )
        for k in latents
    }


def pca_of(
    config: ConfigDict, latents: Sequence[int], patch: int, data_dir: str | None = None
) -> dict:
    """`pca` of the data that `config` trains and is evaluated on."""
    from aejax.data.pipeline import make_pipeline
    from aejax.data.splits import open_splits

    splits = open_splits(config, data_dir)
    pipelines = [make_pipeline(config, training=t, splits=splits) for t in (True, False)]
    training, testing = pipelines
    try:
        return pca(
            training_images(training),
            test_images(testing, config.eval.examples),
            latents,
            config.eval.metrics,
            patch,
        )
    finally:
        for pipeline in pipelines:
            pipeline.close()


def training_images(pipeline: "Pipeline", examples: int = EXAMPLES) -> UInt8[np.ndarray, "n h w c"]:
    """Whole images as they stand, or `examples` random crops, as training sees them."""
    import jax
    import jax.numpy as jnp

    crops = pipeline.example_shape != pipeline.source.shape
    if not crops:
        if pipeline.resident is not None:
            return np.asarray(pipeline.resident["image"])
        return np.stack([pipeline.reader.read(i)[0] for i in range(min(pipeline.n, examples))])
    examples = max(1, min(examples, CROPPED // math.prod(pipeline.image_shape)))
    batches, step = [], 0
    resident = jax.tree.map(jnp.asarray, pipeline.resident)
    while sum(map(len, batches)) < examples:
        batch = {name: value[0] for name, value in pipeline.dispatch(step, 1).items()}
        image = pipeline.images(resident, batch, None, True)["image"]
        batches.append(np.round(np.asarray(image) * 255).astype(np.uint8))
        step += 1
    return np.concatenate(batches)[:examples]


def test_images(pipeline: "Pipeline", examples: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(uint8 images, mask) of the evaluation split, or of its first `examples`."""
    seen, resident = 0.0, pipeline.resident or {}
    for batch in pipeline.eval_batches(256):
        mask = batch["mask"]
        if "image" in batch:
            images = batch["image"]
        else:
            images = np.asarray(resident["image"])[batch["row"]]
        yield images, mask
        seen += float(mask.sum())
        if examples and seen >= examples:
            return
