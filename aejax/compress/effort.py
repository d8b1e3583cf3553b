"""Latents made for one image: gradient steps through the decoder before anything is rounded.

The latents descend bits + lambda MSE with the noise that stands for rounding in training (Balle et
al. 2017, arXiv 1611.01704; for single images Campos et al. 2019, arXiv 1906.01223), by momentum in
units of each channel's own curvature; the decoder is the same. Steps of Adam, of annealed rounding
(Yang et al. 2020, arXiv 2006.04240) or of straight-through rounding were tried with the first
weights and did worse than none: they move what has nearly no gradient as far as what has much.

lambda is the slope of this image's own curve at the quality asked for, not the training's. With
weights that do not stand where their lambda says, the latter would only move the image along its
curve: fewer bits, as many decibels less, and another quality than was asked for.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from aejax.compress import container, nets
from aejax.compress.container import Header
from aejax.compress.runtime import SHAPES, Runtime, fit

STEPS = (0, 4, 8, 12, 16, 24, 32, 40, 60, 80)  # of --effort 0..9
RATE = 0.1  # of a step, at the start; a tenth of it in the end
MOMENTUM = 0.9
FARTHEST = 0.2  # that a latent moves in a step, in units of the quantiser
APART = 12  # quality bytes to either side, between which the slope is taken


def lagrangian(model, variables, y, lam, x, mask, pixels, edges, quality, key):
    """Bits + lam * squared error on 0..255 of one image, in noise.

    y [1, h, w, M]; x [1, 16 h, 16 w, 3] in [0, 1]; mask [h, w, 1] of latents inside; pixels
    [1, 16 h, 16 w, 1] of pixels inside; edges: rows and columns of latents, the last ones inside
    repeated, as the decoder fills its window.
    """
    cond = {"quality": quality}

    def run(m):
        b = m.bottleneck
        z = jax.lax.stop_gradient(b.hyper_analysis(y, cond))
        mean, _ = b.z_prior(cond)
        z_hat = (jnp.floor(z - mean + 0.5) + mean) * mask[::2, ::2]
        features, base = b.hyper_synthesis(z_hat, y.shape[1:3], cond), b.base_levels(cond)
        noisy = (y + jax.random.uniform(key, y.shape, minval=-0.5, maxval=0.5)) * mask
        first = nets.chequer(*y.shape[1:3])
        bits, done, start = 0.0, [], 0
        for i, size in enumerate(m.slices):
            own, part = noisy[..., start : start + size], base[..., start : start + size]
            known = b.known(i, features, done)
            for colour, seen in ((first, None), (1.0 - first, own * first)):
                mu, level = b.parameters(i, known, part, seen)
                cost = nets.logistic_bits(own - mu, np.log(nets.SIGMA_MIN) + nets.LOG_STEP * level)
                bits = bits + jnp.sum(cost * colour * mask)
            done.append(own)
            start += size
        return bits, m.f_D(b.ungained(_filled(noisy, edges), cond), cond)

    bits, out = model.apply(variables, method=run)
    return bits + lam * _error(out, x, pixels)


def _filled(y, edges):
    return jnp.take(jnp.take(y, edges[0], axis=1), edges[1], axis=2)


def _error(out, x, pixels):
    return jnp.sum(jnp.square(out - x) * pixels) * (255.0**2 / 3.0)


@functools.cache
def _parts(model):
    """(a step, the gradient of the squared error alone), compiled."""

    @jax.jit
    def step(variables, y, m, rate, *rest):
        m = MOMENTUM * m + (1.0 - MOMENTUM) * jax.grad(lagrangian, 2)(model, variables, y, *rest)
        return y - jnp.clip(rate * m, -FARTHEST, FARTHEST), m

    @jax.jit
    def pull(variables, y, x, pixels, edges, quality):
        def error(y):
            cond = {"quality": quality}
            out = model.apply(
                variables,
                method=lambda m: m.f_D(m.bottleneck.ungained(_filled(y, edges), cond), cond),
            )
            return _error(out, x, pixels)

        return jax.grad(error)(y)

    return step, pull


def measured(runtime: Runtime, rgb: np.ndarray, y: np.ndarray, byte: int) -> tuple[float, float]:
    """(bits, squared error on 0..255, a mean over colours) of an image of one tile as it would be
    coded."""
    header = Header(b"", byte, rgb.shape[1], rgb.shape[0])
    chunks, y_hat = runtime.encode_tile(y, byte)
    out = runtime.pixels(y_hat, 0, header.tiles[0], header)[: rgb.shape[0], : rgb.shape[1]]
    scale = 257.0 if rgb.dtype == np.uint16 else 1.0
    error = np.sum(np.square(out.astype(np.float64) - rgb / scale)) / 3.0
    return 8.0 * sum(len(c.pack()) for c in chunks), float(error)


def slope(runtime: Runtime, rgb: np.ndarray, byte: int) -> float:
    """Bits that one unit of squared error is worth on this image's own curve; within 1/4 to 4
    times what the training said."""
    ends = []
    for other in (max(byte - APART, 0), min(byte + APART, 255)):
        header = Header(b"", other, rgb.shape[1], rgb.shape[0])
        y = runtime.latents(rgb, header.tiles[0], header)
        ends.append(measured(runtime, rgb, y, other))
    (r1, d1), (r2, d2) = ends
    usual = float(nets.lagrangian(np.array([byte / 2.55]))[0])
    found = (r2 - r1) / (d1 - d2) if d1 > d2 and r2 > r1 else usual
    return min(max(found, usual / 4), usual * 4)


def refine(runtime: Runtime, rgb: np.ndarray, y: np.ndarray, byte: int, effort: int) -> np.ndarray:
    """Better latents for an image of one tile, or the same: y [h, w, M] -> the same shape.

    rgb: uint8 or uint16 [H, W, 3], as was analysed; effort: 1 to 9.
    """
    h, w = y.shape[:2]
    rows, cols = fit(h, SHAPES), fit(w, SHAPES)
    s = container.STRIDE
    x = np.zeros((1, rows * s, cols * s, 3), np.float32)
    x[0, : rgb.shape[0], : rgb.shape[1]] = rgb / (65535.0 if rgb.dtype == np.uint16 else 255.0)
    pixels = np.zeros((1, rows * s, cols * s, 1), np.float32)
    pixels[0, : rgb.shape[0], : rgb.shape[1]] = 1
    mask = np.zeros((rows, cols, 1), np.float32)
    mask[:h, :w] = 1
    full = np.zeros((1, rows, cols, y.shape[-1]), np.float32)
    full[0, :h, :w] = y
    quality = np.array([byte / 2.55], np.float32)
    edges = np.minimum(np.arange(rows), h - 1), np.minimum(np.arange(cols), w - 1)
    lam, (step, pull) = slope(runtime, rgb, byte), _parts(runtime.model)

    # The curvature of the error per channel: what a push of half a step in random directions does.
    push = np.random.default_rng(0).choice(np.float32([-0.5, 0.5]), full.shape) * mask
    ends = [pull(runtime.variables, full + p, x, pixels, edges, quality) for p in (push, -push)]
    curve = np.sum(push * (np.asarray(ends[0]) - np.asarray(ends[1])), (0, 1, 2))
    curve = lam * curve / max(2.0 * np.sum(push[..., 0] ** 2), 1.0)
    curve = np.maximum(curve, max(0.05 * float(np.median(curve)), 1e-6)).astype(np.float32)

    latents, m, key = jnp.asarray(full), jnp.zeros_like(full), jax.random.key(0)
    steps = STEPS[effort]
    for n in range(steps):
        rate = RATE * 0.1 ** (n / steps) / curve
        latents, m = step(
            runtime.variables, latents, m, rate, np.float32(lam), x, mask, pixels, edges, quality,
            jax.random.fold_in(key, n),
        )  # fmt: skip
    better = np.asarray(latents)[0, :h, :w]
    costs = [r + lam * d for r, d in (measured(runtime, rgb, v, byte) for v in (y, better))]
    return better if costs[1] < costs[0] else y
