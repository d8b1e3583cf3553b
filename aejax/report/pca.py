"""PCA of the same latent size as a model, in closed form, measured by the same metrics.

PCA of whole images is the best linear f_E and f_D for squared error (Baldi and Hornik, 1989). For
spatial latents it is PCA of patches, the Karhunen-Loeve transform. Outputs are clipped to [0, 1];
metrics are computed per test image and averaged.
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

MAX_EXAMPLES = 20_000  # training images or crops that the components are fitted to, at most
MAX_CROP_VALUES = 1 << 26  # values in those crops, at most: 256 MiB as float32
PICTURES = 16  # how many of the first test images' outputs are kept


@dataclasses.dataclass
class Baseline:
    """The measured baseline of one latent size.

    Attributes:
      metrics: {"test/psnr": mean over the test images, ...}.
      parameters: how many numbers are fitted: the components and the mean.
      pictures: the outputs of the first PICTURES test images, uint8 [h, w, c].
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
    """PCA of `train` [n, h, w, c], uint8, measured on batches (images, mask) of `test`.

    Args:
      latents: numbers of components: per image, or per patch x patch block.
      metrics: names in aejax.metrics.image, or "package.module:name".
      patch: side of a patch in pixels; 0 = PCA of whole images.

    Returns:
      {latent: its baseline}.

    Raises:
      UserError: `test` is empty.
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
    pictures: dict[int, list[np.ndarray]] = {k: [] for k in latents}
    count = 0.0
    for images, mask in test:
        x = images.astype(np.float32) / 255
        rows = to_rows(x, patch)
        for k in latents:
            y = np.clip(from_rows(components.project(rows, k), x.shape, patch), 0, 1)
            for name, f in functions.items():
                sums[k][name] += float((np.asarray(f(x, y), np.float64) * mask).sum())
            missing = PICTURES - len(pictures[k])
            pictures[k] += list(np.round(y[mask > 0][:missing] * 255).astype(np.uint8))
        count += float(mask.sum())
    if not count:
        raise UserError("the evaluation split has no examples; set data.eval_split")
    return {
        k: Baseline(
            {f"test/{name}": total / count for name, total in sums[k].items()},
            d * min(k, components.k) + d,
            pictures[k],
        )
        for k in latents
    }


def pca_of(
    config: ConfigDict, latents: Sequence[int], patch: int, data_dir: str | None = None
) -> dict[int, Baseline]:
    """`pca` fitted to the training data of `config` and measured on its test data."""
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


def training_images(
    pipeline: "Pipeline", examples: int = MAX_EXAMPLES
) -> UInt8[np.ndarray, "n h w c"]:
    """Training images as the PCA is fitted to them: whole images (all of them if they are in
    memory, else the first `examples`), or `examples` random crops if the config crops."""
    import jax
    import jax.numpy as jnp

    is_cropped = pipeline.example_shape != pipeline.source.shape
    if not is_cropped:
        if pipeline.resident is not None:
            return np.asarray(pipeline.resident["image"])
        return np.stack([pipeline.reader.read(i)[0] for i in range(min(pipeline.n, examples))])
    examples = max(1, min(examples, MAX_CROP_VALUES // math.prod(pipeline.image_shape)))
    batches, step = [], 0
    resident = jax.tree.map(jnp.asarray, pipeline.resident)
    while sum(map(len, batches)) < examples:
        batch = {name: value[0] for name, value in pipeline.dispatch(step, 1).items()}
        image = pipeline.images(resident, batch, None, True)["image"]
        batches.append(np.round(np.asarray(image) * 255).astype(np.uint8))
        step += 1
    return np.concatenate(batches)[:examples]


def test_images(pipeline: "Pipeline", examples: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches (uint8 images, mask) of the test split, up to at least `examples`; 0 = of all."""
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
