"""`aejax.denoise(image)`: any size, gray or colour, float or integer, with or without sigma."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable

import flax.linen as nn
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from aejax.denoising.noise import NoiseReport, estimate_sigma, local_level, noise_report
from aejax.denoising.tiling import tiled
from aejax.errors import UserError
from aejax.nets.applied import applied
from aejax.types import Variables

SMALLEST = 8  # pixels a side
TILE = 1024  # pixels a side: about 0.6 GiB of memory in all for the shipped models
# Largest overlap of tiles, in pixels. The receptive field of denoise_photo is larger, but pixels
# farther away change its output by less than 1e-4 (0.02 if cut at 80).
MARGIN = 96
# Estimated white noise (of 255) from which "auto" chooses the white-noise weights. The estimates
# for other noise and for clean texture are below it on the training photographs: see
# experiments/denoise/README.md.
WHITE_FROM = 13.0


@dataclasses.dataclass(frozen=True)
class Network:
    """A denoiser with its weights, for images of `channels` channels."""

    model: nn.Module
    variables: Variables
    channels: int
    name: str

    @property
    def takes_sigma(self) -> bool:
        """Whether the model can be given the noise level."""
        return getattr(self.model, "told", "never") != "never"

    @property
    def needs_sigma(self) -> bool:
        """Whether the model must be given the noise level."""
        return getattr(self.model, "told", "never") == "always"

    @property
    def margin(self) -> int:
        """Overlap of tiles in pixels: the receptive field, but at most MARGIN."""
        return min(getattr(self.model, "reach", 64), MARGIN)

    @functools.cached_property
    def in_gray(self) -> "Network":
        """A 1-channel network that gives the result of this 3-channel one for three equal channels,
        in less time. Returns itself if it has 1 channel or its model is not one of `MODELS`."""
        from aejax.denoising.distil import in_gray
        from aejax.denoising.models import MODELS

        if self.channels != 3 or not isinstance(self.model, tuple(MODELS.values())):
            return self
        params = in_gray(self.variables["params"])
        return Network(self.model, {**self.variables, "params": params}, 1, self.name)

    @functools.cached_property
    def _run(self):
        import jax

        def run(variables, x, sigma):
            cond = None if sigma is None else {"sigma": sigma[None]}
            return applied(self.model, variables, x[None], cond, train=False).y[0]

        return jax.jit(run)

    def __call__(
        self,
        x: Float[np.ndarray, "h w c"],
        sigma: float | None = None,
        *,
        tile: int = TILE,
        self_ensemble: bool = False,
        progress: Callable[[float], None] = lambda fraction: None,
    ) -> Float[np.ndarray, "h w c"]:
        """Denoises one image.

        Args:
          x: float32, black 0 and white 1; noise may leave that range.
          sigma: noise level on the 0..255 scale, for a model that takes it; None = blind.
          tile: side of the tiles in pixels, which bounds the memory.
          self_ensemble: mean over the 8 flips and rotations: 8 times the work, about 0.05 dB.
          progress: called with the completed fraction, 0 to 1.

        Returns:
          The denoised image, float32, not clipped.
        """
        level = np.float32(sigma / 255.0) if sigma is not None and self.takes_sigma else None

        def f(part):
            return self._run(self.variables, part, level)

        def run_tiled(x, progress):
            return tiled(
                f, x, tile=tile, margin=self.margin,
                stride=getattr(self.model, "stride", 8), progress=progress,
            )  # fmt: skip

        if not self_ensemble:
            return run_tiled(x, progress)
        total = np.zeros(x.shape, np.float32)
        for i in range(8):
            rotated = np.rot90(x[:, ::-1] if i & 4 else x, i & 3)
            y = run_tiled(np.ascontiguousarray(rotated), lambda d, i=i: progress((i + d) / 8))
            y = np.rot90(y, -(i & 3))
            total += y[:, ::-1] if i & 4 else y
        return total / 8


def load_network(name: str) -> Network:
    """Loads a denoiser; repeated calls return the cached one.

    Args:
      name: a shipped model ("gray", "colour", "photo", ...), a .safetensors file with its .json
        beside it, or a run folder (its averaged weights).

    Raises:
      UserError: there is no such model, or it is not a denoiser.
    """
    # The list of checkpoints is part of the cache's key: a run that trains on is loaded again.
    checkpoints = pathlib.Path(name, "checkpoints")
    return _load_network(str(name), tuple(os.listdir(checkpoints)) if checkpoints.is_dir() else ())


@functools.lru_cache(maxsize=8)
def _load_network(name: str, checkpoints: tuple[str, ...]) -> Network:
    from aejax.loading import load

    trained = load(name)
    channels = trained.shape[-1] if trained.shape else trained.config.data.channels
    if trained.config.task in ("compress", "generate") or channels not in (1, 3):
        raise UserError(f'"{name}" is not a denoiser of gray or colour images')
    return Network(trained.model, trained.variables, channels, name)


def weights_for_level(model: str, white_level: float) -> str:
    """Resolves "auto" to "white" or "photo"; any other name is returned as it is.

    Args:
      white_level: estimated white noise of the image on the 0..255 scale (255 * `estimate_sigma`);
        "white" is chosen from WHITE_FROM on.
    """
    if model != "auto":
        return model
    return "white" if white_level >= WHITE_FROM or not _is_installed("photo") else "photo"


def weights_for_image(image: np.ndarray, model: str = "auto") -> str:
    """`weights_for_level` with the white noise estimated from the image [h, w, c] in [0, 1]."""
    return weights_for_level(model, 255 * estimate_sigma(image)) if model == "auto" else model


def network_for(channels: int, model: str = "auto") -> Network:
    """The network for images of 1 or 3 channels.

    For 1 channel, a colour model is converted to a gray one (`Network.in_gray`).

    Args:
      model: "photo": the weights for photographs; "auto": the same, where the image is not known
        yet (see `weights_for_image`); "white": the weights for additive white Gaussian noise; or
        a name, file or run folder as in `load_network`. If "photo" is not installed, "white" is
        used; if the colour weights are not, the gray ones, which denoise channel by channel.

    Raises:
      UserError: as `load_network`.
    """
    model = weights_for_level(model, 0.0)
    if model == "white":
        model = "colour" if channels == 3 and _is_installed("colour") else "gray"
    network = load_network(model)
    return network.in_gray if channels == 1 else network


def _is_installed(name: str) -> bool:
    from aejax import weights

    return weights.ALIASES.get(name, name) in weights.names()


@dataclasses.dataclass(frozen=True)
class Restored:
    """A denoised image and its noise level (0..255 scale).

    Attributes:
      image: shape and type of the input.
      sigma: estimated noise level: RMS of what the blind model removes, or the estimate of white
        noise (`estimate_sigma`) if that is higher, but less than twice as high.
      removed: RMS of the difference between input and output.
      report: analysis of the noise, if it was requested.
    """

    image: np.ndarray
    sigma: float
    removed: float
    report: NoiseReport | None = None


def _checked(image: ArrayLike) -> np.ndarray:
    x = np.asarray(image)
    if x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[2] not in (1, 3)):
        raise UserError(
            f"denoise: an image is [h, w], [h, w, 1] or [h, w, 3], not {list(x.shape)}"
            + ("; one image at a time" if x.ndim == 4 else "")
        )
    if not (x.dtype in (np.uint8, np.uint16) or np.issubdtype(x.dtype, np.floating)):
        raise UserError(f"denoise: values are float in [0, 1], uint8 or uint16, not {x.dtype}")
    if min(x.shape[:2]) < SMALLEST:
        raise UserError(
            f"denoise: {x.shape[0]}x{x.shape[1]} pixels are too few; {SMALLEST} a side at least"
        )
    if np.issubdtype(x.dtype, np.floating):
        if not np.isfinite(x).all():
            raise UserError("denoise: the image holds NaN or infinite values")
        if np.abs(x).max() > 20:
            raise UserError(
                f"denoise: float images are in [0, 1], this one reaches "
                f"{float(np.abs(x).max()):g}; "
                "divide it by its white level, or pass uint8 or uint16"
            )
    return x


def restore(
    image: ArrayLike,
    sigma: float | None = None,
    *,
    model: str = "auto",
    strength: float = 1.0,
    self_ensemble: bool = False,
    tile: int = TILE,
    report: bool = False,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Restored:
    """As `denoise`, but also returns the noise level.

    Args:
      report: also analyse the noise (`NoiseReport`). All others are those of `denoise`.

    Raises:
      UserError: as `denoise`.
    """
    x = _checked(image)
    if not 0 <= strength <= 2:
        raise UserError(f"denoise: strength = {strength} is not between 0 and 2")
    if sigma is not None and not (np.isfinite(sigma) and 0 <= sigma <= 255):
        raise UserError(f"denoise: sigma = {sigma} is not between 0 and 255 (8-bit levels)")
    white = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(x.dtype, 1)
    flat = (x[..., None] if x.ndim == 2 else x).astype(np.float32)
    flat = flat / np.float32(white) if white > 1 else flat
    white_level = 255 * estimate_sigma(flat)
    network = network_for(flat.shape[2], weights_for_level(model, white_level))
    if (sigma == 0 or strength == 0) and not report:
        return Restored(x.copy(), white_level, 0.0)
    input_sigma = None  # the level that is an input of the network
    if network.needs_sigma:
        input_sigma = white_level if sigma is None else sigma

    def run(x: np.ndarray) -> np.ndarray:
        return _run_network(
            network, x, input_sigma, self_ensemble=self_ensemble, tile=tile, progress=progress
        )

    denoised = run(flat)
    rms = 255 * _rms(flat - denoised)
    if sigma is None or input_sigma is not None:
        amount = strength
    else:
        amount = strength * sigma / max(rms, 1e-3)
    target = None if sigma is None else sigma * strength / 255
    y = _scale_removal(run, flat, denoised, amount, target)
    removed = 255 * _rms(y - flat)
    level = max(rms, white_level) if rms > 0.5 * white_level else rms
    analysis = noise_report(flat, denoised) if report else None
    if white > 1:
        y = np.round(np.clip(y, 0, 1) * white)
    y = x.copy() if amount == 0 else y.reshape(x.shape).astype(x.dtype)
    return Restored(y, level, removed, analysis)


def _rms(v: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(v), dtype=np.float64)))


def _run_network(
    network: Network, x: np.ndarray, sigma: float | None, *, progress, **options
) -> Float[np.ndarray, "h w c"]:
    """The network's output, also if its number of channels differs: a gray image is given to a
    colour network as three equal channels, a colour image to a gray network channel by channel."""
    c = x.shape[2]
    if network.channels == c:
        return network(x, sigma, progress=progress, **options)
    if network.channels == 1:
        parts = [
            network(x[..., i : i + 1], sigma, **options,
                    progress=lambda d, i=i: progress((i + d) / c))
            for i in range(c)
        ]  # fmt: skip
        return np.concatenate(parts, axis=2)
    y = network(np.repeat(x, 3, 2), sigma, progress=progress, **options)
    return y.mean(2, keepdims=True)


def _scale_removal(
    run: Callable[[np.ndarray], np.ndarray],
    x: Float[np.ndarray, "h w c"],
    y: Float[np.ndarray, "h w c"],
    amount: float,
    level: float | None,
) -> Float[np.ndarray, "h w c"]:
    """x with `amount` times the noise removed that is missing from its denoised version y.

    Up to 1, this interpolates between x and y. Above 1, x is denoised again as if its noise were
    stronger: white noise is added until the total is `level` everywhere, or, if level is None,
    `amount` times the local level of x - y. The added noise is always the same, so the result is
    reproducible.
    """
    if amount <= 1:
        return x + np.float32(amount) * (y - x)
    if level is None:
        extra = local_level(x - y) * np.sqrt(amount**2 - 1)
    else:
        extra = np.sqrt(max(level**2 - _rms(x - y) ** 2, 0.0))
    noise = np.random.default_rng(0).standard_normal(x.shape, np.float32)
    return run(x + (extra * noise).astype(np.float32))


def denoise(image: ArrayLike, sigma: float | None = None, **options) -> np.ndarray:
    """Removes noise from one image; same shape and type out.

    Args:
      image: [h, w], [h, w, 1] or [h, w, 3]; float with black 0 and white 1 (noise may leave that
        range; the result is not clipped), uint8 or uint16.
      sigma: how much noise to remove: a standard deviation on the 0..255 scale, for all types.
        If it is lower than what the model removes by itself, only that part is removed; if it is
        higher, the image is denoised as if its noise were that strong. None: the model decides.
      model: "photo" (camera noise, JPEG), "white" (additive white Gaussian noise), "auto" (one of
        these two, by the estimated white noise, see `weights_for_image`), "gray", "colour", a run
        folder, or a weights file.
      strength: 0 leaves the image unchanged, 1 removes all noise that the model sees, 2 denoises
        as if there were twice as much.
      self_ensemble: mean over 8 flips and rotations: 8 times slower, a little better.
      tile: side of the tiles in pixels, which bounds the memory.
      progress: called with the completed fraction, 0 to 1.

    Raises:
      UserError: invalid shape, type, values or options; no weights of that name.

    >>> clean = aejax.denoise(photo, sigma=15)
    >>> clean.shape, clean.dtype
    ((64, 96, 3), dtype('uint8'))
    """
    return restore(image, sigma, **options).image
