"""`--effort`: rate-distortion optimised quantisation of one image.

By default an encoder rounds every latent to its nearest symbol. Here symbols are moved up or down
by one where that lowers the cost of the whole image, bits + lambda * distortion (squared error, or
1 - MS-SSIM for weights trained for it). For all latents at once, the change in distortion is
estimated from its gradient through the decoder and its curvature (one number per channel), the
change in bits from the entropy model. The estimates hold for a single move, so only a random
fraction of the moves that lower the cost is made in a step; then everything is computed again,
because the tables of later symbols depend on the moved ones. The format and the decoder do not
change.

This is the rate-distortion optimised quantisation of video codecs without a trellis, and similar to
stochastic Gumbel annealing (Yang et al. 2020, arXiv 2006.04240) with moves chosen by their value.

Early steps assume a smaller curvature: many moves of small value are tried together, and the best
symbols found are kept. Variants that gained less are in experiments/compress/README.md.

lambda is the slope of this image's own rate-distortion curve at the requested quality, not that of
the training. Where the two differ, the training's lambda would move the image along its curve:
fewer bits at a lower PSNR, which is another quality than the requested one.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from aejax.codec.container import Header
from aejax.codec.levels import log_deviation, logistic_bits
from aejax.codec.objective import distortion
from aejax.codec.parts import (
    as_quality,
    hyper_decode,
    hyper_symbols,
    symbols_of,
    synthesise,
    to_float,
)
from aejax.codec.quality import lagrangian
from aejax.codec.runtime import Runtime
from aejax.codec.transforms import STRIDE
from aejax.codec.windows import padded_tile

STEPS = (0, 4, 8, 12, 16, 24, 32, 40, 60, 80)  # of effort 0 to 9
# How often a move that lowers the cost is made, over all steps. In a step the fraction of such
# moves that is made is this divided by the number of steps, at most 1/2.
MOVES = 9.0
# Factors of the curvature in the first and the last step. They are larger for 1 - MS-SSIM, which a
# parabola fits badly.
CURVATURE = {"mse": (0.7, 1.0), "ms-ssim": (1.5, 3.0)}
MIN_SAVING = 0.1  # cost, in bits, that a move must save
SLOPE_DISTANCE = 12  # the slope is measured between the qualities this many bytes below and above


@functools.cache
def _compiled(model, metric):
    """(step, gradient of the distortion with respect to y_hat), compiled."""

    def distortion_of(variables, y_hat, image):
        # Positions outside the tile repeat its last ones, as the decoder pads its windows.
        rows, cols = image["edges"]
        out = synthesise(model, variables, y_hat[:, rows][:, :, cols], image["quality"])
        out = jnp.where(image["pixels"], out, image["x"])  # no distortion outside the image
        return distortion(metric, out, image["x"])[0] * image["pixels"].size

    @jax.jit
    def step(variables, y, best, curvature, fraction, image, key):
        """y [1, h, w, M] -> (y after a fraction of the moves, best).

        best: (lowest cost so far, its y), updated with the cost of the given y.
        """
        z = hyper_symbols(model, variables, y, image["z_mask"], image["quality"])
        features, base = hyper_decode(model, variables, z, image["z_mask"], image["quality"])
        s, level, y_hat = symbols_of(model, variables, y, features, base, image["mask"])
        d, gradient = jax.value_and_grad(distortion_of, 1)(variables, y_hat, image)
        is_coded = image["mask"] * (level > 0)
        log_sigma = log_deviation(level.astype(jnp.float32))

        def bits_of(symbols):
            return logistic_bits(symbols, log_sigma) * is_coded

        s, lam = s.astype(jnp.float32), image["lam"]
        bits = bits_of(s)
        cost = jnp.sum(bits) + lam * d
        best = jax.tree.map(lambda new, old: jnp.where(cost < best[0], new, old), (cost, y), best)
        down, up = (
            bits_of(s + move) - bits + lam * gradient[0] * move + 0.5 * curvature
            for move in (-1.0, 1.0)
        )
        is_moved = (jnp.minimum(down, up) < -MIN_SAVING) & (is_coded > 0)
        is_moved &= jax.random.uniform(key, is_moved.shape) < fraction
        return jnp.where(is_moved, y_hat + jnp.where(down < up, -1.0, 1.0), y), best

    return step, jax.jit(jax.grad(distortion_of, 1))


def metric_of(runtime: Runtime) -> str:
    """The metric that the weights were trained for: "mse" or "ms-ssim"."""
    objective = runtime.frozen.meta.config.get("objective", {})
    return objective.get("kwargs", {}).get("metric", "mse")


def rate_and_distortion(
    runtime: Runtime, rgb: np.ndarray, y: np.ndarray, byte: int
) -> tuple[float, float]:
    """(bits, distortion times the number of pixels) of an image of one tile coded from y.

    Args:
      rgb: uint8 or uint16 [H, W, 3].
      y: its latents before rounding, [h, w, M].
      byte: quality, 0 to 255.
    """
    header = Header(b"", byte, rgb.shape[1], rgb.shape[0])
    chunks, y_hat = runtime.encode_tile(y, byte)
    out = runtime.pixels(y_hat, 0, header.tiles[0], header)[: rgb.shape[0], : rgb.shape[1]]
    pair = to_float(out)[None], to_float(rgb)[None]
    d = float(distortion(metric_of(runtime), *pair)[0]) * rgb.shape[0] * rgb.shape[1]
    return 8.0 * sum(len(c.pack()) for c in chunks), d


def slope(runtime: Runtime, rgb: np.ndarray, byte: int) -> float:
    """Bits per unit of distortion on this image's own rate-distortion curve, limited to 1/4 to 4
    times the lambda of the training."""
    points = []
    for other in (max(byte - SLOPE_DISTANCE, 0), min(byte + SLOPE_DISTANCE, 255)):
        header = Header(b"", other, rgb.shape[1], rgb.shape[0])
        y = runtime.latents(rgb, header.tiles[0], header)
        points.append(rate_and_distortion(runtime, rgb, y, other))
    (r1, d1), (r2, d2) = points
    trained = float(lagrangian(jnp.array([byte / 2.55]), runtime.frozen.model.rates)[0])
    measured = (r2 - r1) / (d1 - d2) if d1 > d2 and r2 > r1 else trained
    return min(max(measured, trained / 4), trained * 4)


def refine(
    runtime: Runtime,
    rgb: np.ndarray,
    y: np.ndarray,
    byte: int,
    effort: int,
    factors: tuple[float, float] | None = None,
) -> np.ndarray:
    """Latents of an image of one tile with a lower cost, or y itself if none were found.

    Args:
      rgb: uint8 or uint16 [H, W, 3].
      y: its latents before rounding, [h, w, M].
      byte: quality, 0 to 255.
      effort: 1 to 9.
      factors: of the curvature, at the first and the last step; None = CURVATURE of the metric.
    """
    h, w = y.shape[:2]
    (rows, cols), mask, z_mask = padded_tile(h, w)
    x = np.zeros((1, rows * STRIDE, cols * STRIDE, 3), np.float32)
    inside = np.s_[0, : rgb.shape[0], : rgb.shape[1]]
    x[inside] = to_float(rgb)
    pixels = np.zeros((*x.shape[:3], 1), bool)
    pixels[inside] = True
    padded = np.zeros((1, rows, cols, y.shape[-1]), np.float32)
    padded[0, :h, :w] = y
    lam = slope(runtime, rgb, byte)
    edges = np.minimum(np.arange(rows), h - 1), np.minimum(np.arange(cols), w - 1)
    image = {"x": x, "pixels": pixels, "mask": mask, "z_mask": z_mask, "edges": edges,
             "quality": as_quality(byte), "lam": np.float32(lam)}  # fmt: skip
    variables, metric = runtime.variables, metric_of(runtime)
    step, gradient = _compiled(runtime.model, metric)  # pyrefly: ignore  a Flax module has a hash
    curvature = _curvature(
        lambda y: np.asarray(gradient(variables, y, image)), padded, mask, lam, metric != "mse"
    )

    latents, best = jnp.asarray(padded), (jnp.inf, jnp.asarray(padded))
    key = jax.random.key(0)
    steps, (first, last) = STEPS[effort], factors or CURVATURE[metric]
    fraction = np.float32(min(MOVES / steps, 0.5))
    for n in range(steps + 1):  # the last one only computes the cost
        factor = np.float32(first * (last / first) ** (n / steps))
        latents, best = step(
            variables,
            latents,
            best,
            factor * curvature,
            fraction,
            image,
            jax.random.fold_in(key, n),
        )
    refined = np.asarray(best[1])[0, :h, :w]
    pairs = (rate_and_distortion(runtime, rgb, latents, byte) for latents in (y, refined))
    before, after = (r + lam * d for r, d in pairs)
    return refined if after < before else y


def _curvature(
    gradient: Callable[[np.ndarray], np.ndarray],
    y: np.ndarray,
    mask: np.ndarray,
    lam: float,
    local: bool,
) -> np.ndarray:
    """Second derivative of lam * distortion by a latent, per channel [M], or [h, w, M] if `local`.

    Estimated from the change of the gradient between two points half a step away from y in opposite
    random directions (Hutchinson's estimator).

    Args:
      gradient: y [1, h, w, M] -> gradient of the distortion.
      mask: [h, w, 1], 1 inside the tile.
      local: scale it by its mean over 3x3 positions, for MS-SSIM, which tolerates more distortion
        in textured areas.
    """
    direction = np.random.default_rng(0).choice(np.array([-0.5, 0.5], np.float32), y.shape) * mask
    at_ends = [gradient(y + d) for d in (direction, -direction)]
    products = lam * direction * (at_ends[0] - at_ends[1])
    curvature = np.sum(products, (0, 1, 2)) / max(2.0 * np.sum(direction[..., 0] ** 2), 1.0)
    curvature = np.maximum(curvature, max(0.05 * float(np.median(curvature)), 1e-6))
    if local:
        sums = np.sum(products[0], -1), mask[..., 0]
        measured, inside = (scipy.ndimage.uniform_filter(v, 3) for v in sums)
        ratio = measured / np.maximum(0.5 * np.sum(curvature) * inside, 1e-9)
        curvature = curvature * np.maximum(ratio, 0.05)[..., None]
    return curvature.astype(np.float32)
