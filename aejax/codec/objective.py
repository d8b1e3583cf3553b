"""The rate-distortion loss of the lossy codec, over all qualities, and its initialisation."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from aejax.codec.bottleneck import TABLE_SCALE
from aejax.codec.levels import LEVELS, LOG_STEP, SIGMA_MIN
from aejax.codec.quality import lagrangian
from aejax.codec.transforms import KLT_SCALE, STRIDE
from aejax.metrics import image as metrics
from aejax.nets import ops
from aejax.nets.linear import principal_axes
from aejax.objective import run_model
from aejax.types import Aux

# Factor of 1 - MS-SSIM (five scales) that makes it comparable with MSE on 0..255, so that a quality
# costs about the same bits with both. The ratio of their slopes along the rate-distortion curve of
# the MSE model was 600 to 1,900 on four held-out photographs, nearly the same at all qualities.
MS_SSIM = 1400.0


def distortion(
    metric: str, y: Float[Array, "b h w c"], x: Float[Array, "b h w c"]
) -> Float[Array, " b"]:
    """The distortion that lambda multiplies, per image, of y and x in [0, 1]: the MSE of values in
    0..255, or MS_SSIM * (1 - MS-SSIM).

    Args:
      metric: "mse" or "ms-ssim".
    """
    if metric == "mse":
        return 255.0**2 * jnp.mean((y - x) ** 2, (1, 2, 3))
    return MS_SSIM * (1.0 - metrics.ms_ssim(y, x))


@dataclasses.dataclass(frozen=True)
class RateDistortion:
    """(bpp + lambda(q) * distortion) / sqrt(lambda(q) / lambda(50)), with q drawn per image.

    The rate, and with it the Lagrangian, grows about as sqrt(lambda). Dividing by it gives equal
    weight to relative changes at all qualities, as BD-rate does.

    Metrics of an example: "loss", "bpp" (estimated, of y and z), "bpp_z", "psnr" in dB, "mse", and
    with metric "ms-ssim" also "ms_ssim".

    Args:
      metric: "mse" or "ms-ssim", see `distortion`. Crops below 176 pixels use fewer than five
        scales of MS-SSIM.
      quality: range from which the quality is drawn in training; equal ends train a model of one
        rate.
      klt: initialise the linear paths with the KLT of the first training images, and the entropy
        model with its variances. No effect if model.start replaces all parameters.
      judged: qualities at which an evaluation also reports the loss of all images, "loss_20" for
        20.
    """

    metric: str = "mse"
    quality: tuple[float, float] = (0.0, 100.0)
    klt: bool = True
    judged: tuple[int, ...] = ()

    def conditions(self, batch, key, train: bool) -> dict[str, Array]:
        """{"quality": [b]}: random in training; in an evaluation five equally spaced values, in
        turn over the images of the batch."""
        low, high = self.quality
        n = batch["image"].shape[0]
        t = jax.random.uniform(key, (n,)) if train else jnp.arange(n) % 5 / 4
        return {"quality": low + (high - low) * t}

    def __call__(self, model, variables, batch, key, train):
        x = batch["image"]
        key_q, key_model = jax.random.split(key)
        cond = self.conditions(batch, key_q, train)
        loss, aux = self._at(cond, model, variables, x, key_model, train)
        if not train:
            for quality in self.judged:
                fixed = {"quality": jnp.full(x.shape[0], float(quality))}
                loss_at_quality, _ = self._at(fixed, model, variables, x, key_model, False)
                aux.metrics[f"loss_{quality}"] = loss_at_quality
        return loss, aux

    def _at(self, cond, model, variables, x, key, train):
        """(loss, Aux) at the qualities of `cond`."""
        out, collections = run_model(model, variables, x, cond, key, train)
        pixels = x.shape[1] * x.shape[2]
        bpp_z, bpp_y = out.terms["bits_z"] / pixels, out.terms["bits_y"] / pixels
        lam = lagrangian(cond["quality"], model.rates)
        mse = jnp.mean((out.y - x) ** 2, (1, 2, 3))
        d = distortion(self.metric, out.y, x)
        lam_50 = math.sqrt(model.rates[0] * model.rates[1])
        loss = (bpp_y + bpp_z + lam * d) * jnp.sqrt(lam_50 / lam)
        clipped = jnp.clip(out.y, 0.0, 1.0)
        psnr = -10.0 * jnp.log10(jnp.mean((clipped - x) ** 2, (1, 2, 3)) + 1e-10)
        values = {"loss": loss, "bpp": bpp_y + bpp_z, "bpp_z": bpp_z, "psnr": psnr, "mse": mse}
        if self.metric != "mse":
            values["ms_ssim"] = 1.0 - d / MS_SSIM
        return loss, Aux(values, collections, {"x": x, "y": clipped})

    def initialise(self, model, variables, images: Float[Array, "n h w c"]):
        """`klt_start` if `klt`, else the variables unchanged."""
        return klt_start(variables, images) if self.klt else variables


def klt_start(variables, images: Float[Array, "n h w c"]):
    """Variables initialised with the KLT (PCA without centring) of 16x16 blocks of images.

    Sets the linear paths of g_a and g_s to the KLT and its transpose, `weigh` of g_s to 1 / sigma
    of the coefficients, and the base levels of the entropy model to those of sigma times the gain.

    Args:
      variables: of a Codec.
      images: in [0, 1]; n h w should be at least about 10^6.
    """
    pictures = np.asarray(images, np.float32)
    s = STRIDE
    h, w = pictures.shape[1] // s * s, pictures.shape[2] // s * s
    total, count = 0.0, 0
    for flip in (slice(None), slice(None, None, -1)):  # mirrored images too: symmetric statistics
        for start in range(0, len(pictures), 64):
            batch = pictures[start : start + 64, :h, :w][:, :, flip] - 0.5
            blocks = np.asarray(ops.unshuffle(jnp.asarray(batch), s))
            blocks = blocks.reshape(-1, blocks.shape[-1])
            total, count = total + blocks.T @ blocks, count + len(blocks)
    variances, axes = principal_axes(np.asarray(total, np.float64) / count)
    params = jax.tree.map(lambda a: a, variables["params"])
    latent = params["f_E"]["klt"].shape[1]
    basis = axes[:, :latent].astype(np.float32)
    sigma = np.sqrt(np.maximum(variances[:latent], 1e-8)).astype(np.float32)
    gain = np.asarray(params["bottleneck"]["gain"])
    level = (np.log(sigma) + gain - math.log(SIGMA_MIN)) / LOG_STEP
    params["f_E"]["klt"] = jnp.asarray(basis * KLT_SCALE)
    params["f_D"]["klt"] = jnp.asarray(basis.T * KLT_SCALE)
    params["f_D"]["weigh"] = jnp.asarray(1.0 / sigma)
    params["bottleneck"]["base"] = jnp.asarray(
        np.clip(level, 0.0, LEVELS - 1.0) / TABLE_SCALE, jnp.float32
    )
    return {**variables, "params": params}
