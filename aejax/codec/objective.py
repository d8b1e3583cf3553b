"""What the codec's training minimises: bits + lambda * distortion, all qualities at once."""

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

# MSE on 0..255 over 1 - MS-SSIM (five scales), one's slope over the other's along the curve of the
# MSE-tuned model: 600 to 1,900 on four held-out photographs, hardly different over the qualities.
# So weighted a quality keeps about its bits.
MS_SSIM = 1400.0


def distortion(
    metric: str, y: Float[Array, "b h w c"], x: Float[Array, "b h w c"]
) -> Float[Array, " b"]:
    """What lambda weighs, per pixel: MSE on 0..255, or 1 - MS-SSIM in its units."""
    if metric == "mse":
        return 255.0**2 * jnp.mean((y - x) ** 2, (1, 2, 3))
    return MS_SSIM * (1.0 - metrics.ms_ssim(y, x))


@dataclasses.dataclass(frozen=True)
class RateDistortion:
    """(bpp + lambda(q) * 255^2 * MSE) / sqrt(lambda(q) / lambda(50)), q drawn per image.

    A BD-rate is a mean of relative differences of bits. Bits grow about as sqrt(lambda), so does
    the Lagrangian, and dividing by it lets every quality pull alike.

    Args:
      metric: "mse", or "ms-ssim", whose distortion is 1 - MS-SSIM times a constant that leaves the
        rates of the qualities about where they were. Crops below 176 pixels have fewer scales.
      quality: (lowest, highest) drawn in training; one value trains a model of one rate.
      klt: start the linear paths as the KLT of the first training images, and the entropy model
        at the variances it finds there. With a whole model.start it means nothing.
      judged: qualities at which an evaluation gives the loss, too, of all images: "loss_20" of 20.
    """

    metric: str = "mse"
    quality: tuple[float, float] = (0.0, 100.0)
    klt: bool = True
    judged: tuple[int, ...] = ()

    def conditions(self, batch, key, train: bool) -> dict[str, Array]:
        """{"quality": [b]}: random in training, else spread over each five images of a batch."""
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
                one = {"quality": jnp.full(x.shape[0], float(quality))}
                loss_there, _ = self._at(one, model, variables, x, key_model, False)
                aux.metrics[f"loss_{quality}"] = loss_there
        return loss, aux

    def _at(self, cond, model, variables, x, key, train):
        """(loss, Aux) at the qualities of `cond`."""
        out, collections = run_model(model, variables, x, cond, key, train)
        pixels = x.shape[1] * x.shape[2]
        bpp_z, bpp_y = out.terms["bits_z"] / pixels, out.terms["bits_y"] / pixels
        lam = lagrangian(cond["quality"], model.rates)
        mse = jnp.mean((out.y - x) ** 2, (1, 2, 3))
        lost = distortion(self.metric, out.y, x)
        middle = math.sqrt(model.rates[0] * model.rates[1])
        loss = (bpp_y + bpp_z + lam * lost) * jnp.sqrt(middle / lam)
        shown = jnp.clip(out.y, 0.0, 1.0)
        psnr = -10.0 * jnp.log10(jnp.mean((shown - x) ** 2, (1, 2, 3)) + 1e-10)
        values = {"loss": loss, "bpp": bpp_y + bpp_z, "bpp_z": bpp_z, "psnr": psnr, "mse": mse}
        if self.metric != "mse":
            values["ms_ssim"] = 1.0 - lost / MS_SSIM
        return loss, Aux(values, collections, {"x": x, "y": shown})

    def initialise(self, model, variables, images: Float[Array, "n h w c"]):
        """The KLT start."""
        return klt_start(variables, images) if self.klt else variables


def klt_start(variables, images: Float[Array, "n h w c"]):
    """Variables whose linear paths are the KLT of the images' blocks, with levels to match.

    images: [n, h, w, c] in [0, 1], n h w at least some 10^6.
    """
    pictures = np.asarray(images, np.float32)
    s = STRIDE
    h, w = pictures.shape[1] // s * s, pictures.shape[2] // s * s
    total, count = 0.0, 0
    for flip in (slice(None), slice(None, None, -1)):  # the statistics of pictures have no side
        for at in range(0, len(pictures), 64):
            part = pictures[at : at + 64, :h, :w][:, :, flip] - 0.5
            rows = np.asarray(ops.unshuffle(jnp.asarray(part), s))
            rows = rows.reshape(-1, rows.shape[-1])
            total, count = total + rows.T @ rows, count + len(rows)
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
