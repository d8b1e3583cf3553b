"""Latents made for one image: gradient steps through the decoder before anything is rounded.

Stochastic Gumbel annealing (Yang, Bamler, Mandt 2020, arXiv 2006.04240): every latent is drawn
between its floor and its ceiling, with odds that a falling temperature turns into rounding; the
decoder is the same, the bits are fewer.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from aejax.compress import container, nets
from aejax.compress.runtime import SHAPES, Runtime, fit

STEPS = (0, 8, 16, 24, 36, 50, 75, 110, 160, 240)  # of --effort 0..9
RATE = 0.03  # largest step of a latent, in units of the quantiser
HOT, COLD = 0.5, 0.05  # temperatures


def between(r, noise, temperature):
    """r -> a value between its floor and ceiling: near a hard choice, with a gradient.

    noise: logistic, i.e. the difference of two Gumbel variables.
    """
    low = jnp.floor(r)
    t = jnp.clip(r - low, 1e-4, 1 - 1e-4)
    odds = jnp.arctanh(t) - jnp.arctanh(1 - t)  # of the ceiling
    return jax.lax.stop_gradient(low) + jax.nn.sigmoid((odds / temperature + noise) / temperature)


def lagrangian(model, variables, y, x, mask, pixels, quality, key, temperature):
    """Bits per pixel + lambda MSE of one image, its latents drawn once.

    y [1, h, w, M]; x [1, 16 h, 16 w, 3] in [0, 1]; mask [h, w, 1] of latents inside; pixels
    [1, 16 h, 16 w, 1] of pixels inside.
    """
    cond, count = {"quality": quality}, jnp.sum(pixels)

    def run(m):
        b = m.bottleneck
        z = jax.lax.stop_gradient(b.hyper_analysis(y, cond))
        mean, _ = b.z_prior(cond)
        half = mask[::2, ::2]
        z_hat = (jnp.floor(z - mean + 0.5) + mean) * half
        features, base = b.hyper_synthesis(z_hat, y.shape[1:3], cond), b.base_levels(cond)
        first = nets.chequer(*y.shape[1:3]) * mask
        bits, done, start = 0.0, [], 0
        for i, size in enumerate(m.slices):
            own, part = y[..., start : start + size], base[..., start : start + size]
            known, hat = b.known(i, features, done), None
            for colour in (first, mask - first):
                draw = jax.random.logistic(
                    jax.random.fold_in(key, 2 * i + (hat is not None)), own.shape
                )
                mu, level = b.parameters(i, known, part, hat)
                v = between(own - mu, draw, temperature)
                cost = nets.logistic_bits(v, np.log(nets.SIGMA_MIN) + nets.LOG_STEP * level)
                bits = bits + jnp.sum(cost * colour)
                new = (v + mu) * colour
                hat = new if hat is None else hat + new
            done.append(hat)
            start += size
        y_hat = jnp.concatenate(done, axis=-1)
        return bits, m.f_D(b.ungained(y_hat, cond), cond)

    bits, out = model.apply(variables, method=run)
    mse = jnp.sum(jnp.square(out - x) * pixels) / (3.0 * count)
    return bits / count + nets.lagrangian(quality)[0] * 255.0**2 * mse


@functools.cache
def _step(model):
    """(variables, y, moments, ...) -> (y, moments): one step of Adam."""

    @jax.jit
    def step(variables, y, m, v, n, x, mask, pixels, quality, key, temperature, rate):
        loss, g = jax.value_and_grad(lagrangian, argnums=2)(
            model, variables, y, x, mask, pixels, quality, key, temperature
        )
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        move = (m / (1 - 0.9**n)) / (jnp.sqrt(v / (1 - 0.99**n)) + 1e-12)
        return y - rate * move, m, v, loss

    return step


def refine(runtime: Runtime, rgb: np.ndarray, y: np.ndarray, byte: int, effort: int) -> np.ndarray:
    """Better latents for an image of one tile: y [h, w, M] -> the same shape.

    rgb: uint8 or uint16 [H, W, 3], as was analysed; effort: 1 to 9.
    """
    h, w = y.shape[:2]
    rows, cols = fit(h, SHAPES), fit(w, SHAPES)
    s = container.STRIDE
    top = 65535.0 if rgb.dtype == np.uint16 else 255.0
    x = np.zeros((1, rows * s, cols * s, 3), np.float32)
    x[0, : rgb.shape[0], : rgb.shape[1]] = rgb / top
    pixels = np.zeros((1, rows * s, cols * s, 1), np.float32)
    pixels[0, : rgb.shape[0], : rgb.shape[1]] = 1
    mask = np.zeros((rows, cols, 1), np.float32)
    mask[:h, :w] = 1
    full = np.zeros((1, rows, cols, y.shape[-1]), np.float32)
    full[0, :h, :w] = y
    quality = np.array([byte / 2.55], np.float32)
    step, steps = _step(runtime.model), STEPS[effort]
    latents, m, v = jnp.asarray(full), jnp.zeros_like(full), jnp.zeros_like(full)
    key = jax.random.key(0)
    for n in range(steps):
        done = n / steps
        temperature = HOT * (COLD / HOT) ** done
        rate = RATE * (1 - done) ** 0.5
        latents, m, v, _ = step(
            runtime.variables, latents, m, v, float(n + 1), x, mask, pixels, quality,
            jax.random.fold_in(key, n), temperature, rate,
        )  # fmt: skip
    return np.asarray(latents)[0, :h, :w]
