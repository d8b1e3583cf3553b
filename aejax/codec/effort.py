"""Symbols chosen for one image: rounding that knows what each symbol costs and what it is good for.

An encoder rounds every latent to its nearest symbol. Here the cost of the whole image,
bits + lambda * distortion (squared error, or 1 - MS-SSIM for weights trained for it), is lowered by
moving symbols up or down by one: for every latent at once, the gradient of the distortion through
the decoder and its curvature (one number a channel) tell what the distortion will do, the tables
what the bits will. Of the moves that are worth it a random share is made, as the counted gain is
that of one move alone, and everything is counted anew (symbols that follow have other tables then).
It is the trellis quantisation of the video codecs without a trellis, and stochastic rounding (Yang
et al. 2020, arXiv 2006.04240) with the steps chosen instead of drawn; the decoder is the same.

The curvature is trusted less at the beginning: many moves that are each worth little are tried
together, and the best set of symbols met is kept. What was tried and did less is in
experiments/compress/README.md.

lambda is the slope of this image's own curve at the quality asked for, not the training's. With
weights that do not stand where their lambda says, the latter would only move the image along its
curve: fewer bits, as many decibels less, and another quality than was asked for.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from aejax.codec import container
from aejax.codec.container import Header
from aejax.codec.levels import log_deviation, logistic_bits
from aejax.codec.objective import distortion
from aejax.codec.parts import as_quality, begin, hyper_symbols, symbols_of, synthesise, unit
from aejax.codec.quality import lagrangian
from aejax.codec.runtime import Runtime
from aejax.codec.windows import padded

STEPS = (0, 4, 8, 12, 16, 24, 32, 40, 60, 80)  # of --effort 0..9
MOVES = 9.0  # times that a move worth making is made, over all steps, as far as that can be
# Of the curvature, at the start and in the end; 1 - MS-SSIM is far from a parabola.
TRUST = {"mse": (0.7, 1.0), "ms-ssim": (1.5, 3.0)}
WORTH = 0.1  # bits that a move has to save
APART = 12  # quality bytes to either side, between which the slope is taken


@functools.cache
def _parts(model, metric):
    """(one move, the gradient of the error), compiled."""

    def error_of(variables, y_hat, image):
        # The last ones inside are repeated, as the decoder fills its window.
        rows, cols = image["edges"]
        out = synthesise(model, variables, y_hat[:, rows][:, :, cols], image["quality"])
        out = jnp.where(image["pixels"], out, image["x"])  # no error outside
        return distortion(metric, out, image["x"])[0] * image["pixels"].size

    @jax.jit
    def move(variables, y, best, curve, share, image, key):
        """y [1, h, w, M] -> y with moves made; best: the least cost so far and its y."""
        z = hyper_symbols(model, variables, y, image["z_mask"], image["quality"])
        features, base = begin(model, variables, z, image["z_mask"], image["quality"])
        s, level, y_hat = symbols_of(model, variables, y, features, base, image["mask"])
        error, pull = jax.value_and_grad(error_of, 1)(variables, y_hat, image)
        coded = image["mask"] * (level > 0)
        log_sigma = log_deviation(level.astype(jnp.float32))

        def bits(symbols):
            return logistic_bits(symbols, log_sigma) * coded

        s, lam = s.astype(jnp.float32), image["lam"]
        now = bits(s)
        cost = jnp.sum(now) + lam * error
        best = jax.tree.map(lambda new, old: jnp.where(cost < best[0], new, old), (cost, y), best)
        down, up = (bits(s + d) - now + lam * pull[0] * d + 0.5 * curve for d in (-1.0, 1.0))
        made = (jnp.minimum(down, up) < -WORTH) & (coded > 0)
        made &= jax.random.uniform(key, made.shape) < share
        return jnp.where(made, y_hat + jnp.where(down < up, -1.0, 1.0), y), best

    return move, jax.jit(jax.grad(error_of, 1))


def metric_of(runtime: Runtime) -> str:
    """What the weights were trained for: "mse" or "ms-ssim"."""
    objective = runtime.frozen.meta.config.get("objective", {})
    return objective.get("kwargs", {}).get("metric", "mse")


def measured(runtime: Runtime, rgb: np.ndarray, y: np.ndarray, byte: int) -> tuple[float, float]:
    """(bits, distortion times pixels) of an image of one tile as it would be coded."""
    header = Header(b"", byte, rgb.shape[1], rgb.shape[0])
    chunks, y_hat = runtime.encode_tile(y, byte)
    out = runtime.pixels(y_hat, 0, header.tiles[0], header)[: rgb.shape[0], : rgb.shape[1]]
    pair = unit(out)[None], unit(rgb)[None]
    error = float(distortion(metric_of(runtime), *pair)[0]) * rgb.shape[0] * rgb.shape[1]
    return 8.0 * sum(len(c.pack()) for c in chunks), error


def slope(runtime: Runtime, rgb: np.ndarray, byte: int) -> float:
    """Bits that one unit of distortion is worth on this image's own curve; within 1/4 to 4
    times what the training said."""
    ends = []
    for other in (max(byte - APART, 0), min(byte + APART, 255)):
        header = Header(b"", other, rgb.shape[1], rgb.shape[0])
        y = runtime.latents(rgb, header.tiles[0], header)
        ends.append(measured(runtime, rgb, y, other))
    (r1, d1), (r2, d2) = ends
    usual = float(lagrangian(jnp.array([byte / 2.55]), runtime.frozen.model.rates)[0])
    measured_slope = (r2 - r1) / (d1 - d2) if d1 > d2 and r2 > r1 else usual
    return min(max(measured_slope, usual / 4), usual * 4)


def refine(
    runtime: Runtime,
    rgb: np.ndarray,
    y: np.ndarray,
    byte: int,
    effort: int,
    trust: tuple[float, float] | None = None,
) -> np.ndarray:
    """Better latents for an image of one tile, or the same: y [h, w, M] -> the same shape.

    rgb: uint8 or uint16 [H, W, 3], as was analysed; effort: 1 to 9; trust: of TRUST, by default
    that of the metric.
    """
    h, w = y.shape[:2]
    (rows, cols), mask, z_mask = padded(h, w)
    x = np.zeros((1, rows * container.STRIDE, cols * container.STRIDE, 3), np.float32)
    inside = np.s_[0, : rgb.shape[0], : rgb.shape[1]]
    x[inside] = unit(rgb)
    pixels = np.zeros((*x.shape[:3], 1), bool)
    pixels[inside] = True
    full = np.zeros((1, rows, cols, y.shape[-1]), np.float32)
    full[0, :h, :w] = y
    lam = slope(runtime, rgb, byte)
    edges = np.minimum(np.arange(rows), h - 1), np.minimum(np.arange(cols), w - 1)
    image = {"x": x, "pixels": pixels, "mask": mask, "z_mask": z_mask, "edges": edges,
             "quality": as_quality(byte), "lam": np.float32(lam)}  # fmt: skip
    variables, metric = runtime.variables, metric_of(runtime)
    move, pull = _parts(runtime.model, metric)  # pyrefly: ignore  a Flax module has a hash

    # The curvature of a channel: what a push of half a step in random directions does.
    push = np.random.default_rng(0).choice(np.array([-0.5, 0.5], np.float32), full.shape) * mask
    ends = [np.asarray(pull(variables, full + p, image)) for p in (push, -push)]
    pushed = lam * push * (ends[0] - ends[1])
    curve = np.sum(pushed, (0, 1, 2)) / max(2.0 * np.sum(push[..., 0] ** 2), 1.0)
    curve = np.maximum(curve, max(0.05 * float(np.median(curve)), 1e-6))
    if metric != "mse":  # MS-SSIM forgives where there is texture: times that of a place
        sums = np.sum(pushed[0], -1), mask[..., 0]
        local, inside_tile = (scipy.ndimage.uniform_filter(v, 3) for v in sums)
        place = local / np.maximum(0.5 * np.sum(curve) * inside_tile, 1e-9)
        curve = curve * np.maximum(place, 0.05)[..., None]
    curve = curve.astype(np.float32)

    latents, best, key = jnp.asarray(full), (jnp.inf, jnp.asarray(full)), jax.random.key(0)
    steps, (first, last) = STEPS[effort], trust or TRUST[metric]
    share = np.float32(min(MOVES / steps, 0.5))
    for n in range(steps + 1):  # the last one only counts
        trusted = np.float32(first * (last / first) ** (n / steps))
        latents, best = move(
            variables, latents, best, trusted * curve, share, image, jax.random.fold_in(key, n)
        )
    better = np.asarray(best[1])[0, :h, :w]
    costs = [r + lam * d for r, d in (measured(runtime, rgb, v, byte) for v in (y, better))]
    return better if costs[1] < costs[0] else y
