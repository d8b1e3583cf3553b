"""`aejax.denoise(image)`: any size, gray or colour, float or integer, blind or told the level."""

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
TILE = 1024  # pixels a side: about 0.6 GiB in all for the shipped models
# Pixels around what a window keeps, at most. denoise_photo reaches further, but changes nothing by
# more than 1e-4 from beyond (0.02 from beyond 80).
MARGIN = 96
# The level (of 255) of white noise from which pictures go to the white-noise weights by default.
# What is estimated for other noise, and for clean texture, stays below it on training photographs:
# see experiments/denoise/README.md.
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
        """Pixels of context around what a window keeps."""
        return min(getattr(self.model, "reach", 64), MARGIN)

    @functools.cached_property
    def in_gray(self) -> "Network":
        """This network of 3 channels as one of a single channel: the same result as for three equal
        channels, in less time. For models whose layers are not known, itself."""
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
        progress: Callable[[float], None] = lambda done: None,
    ) -> Float[np.ndarray, "h w c"]:
        """y of x, float32 in the range of [0, 1] images but not clipped.

        Args:
          sigma: noise level on the 0..255 scale for a model that takes it; None = blind.
          tile: side of the windows in pixels, which bounds the memory.
          self_ensemble: mean over the 8 flips and quarter turns: 8 times the work, about 0.05 dB.
          progress: called with the share done.
        """
        level = np.float32(sigma / 255.0) if sigma is not None and self.takes_sigma else None

        def f(part):
            return self._run(self.variables, part, level)

        def once(x, progress):
            return tiled(
                f, x, tile=tile, margin=self.margin,
                stride=getattr(self.model, "stride", 8), progress=progress,
            )  # fmt: skip

        if not self_ensemble:
            return once(x, progress)
        total = np.zeros(x.shape, np.float32)
        for i in range(8):
            turned = np.rot90(x[:, ::-1] if i & 4 else x, i & 3)
            y = once(np.ascontiguousarray(turned), lambda d, i=i: progress((i + d) / 8))
            y = np.rot90(y, -(i & 3))
            total += y[:, ::-1] if i & 4 else y
        return total / 8


def load_network(name: str) -> Network:
    """A shipped model ("gray", "colour"), a .safetensors file beside its .json, or the folder of a
    run (its averaged weights).

    Raises:
      UserError: there is no such model, or it is no denoiser.
    """
    saved = pathlib.Path(name, "checkpoints")  # a run that is trained on is loaded again
    return _load_network(str(name), tuple(os.listdir(saved)) if saved.is_dir() else ())


@functools.lru_cache(maxsize=8)
def _load_network(name: str, saved: tuple[str, ...]) -> Network:
    from aejax.loading import load

    trained = load(name)
    channels = trained.shape[-1] if trained.shape else trained.config.data.channels
    if trained.config.task in ("compress", "generate") or channels not in (1, 3):
        raise UserError(f'"{name}" is not a denoiser of gray or colour images')
    return Network(trained.model, trained.variables, channels, name)


def suited(model: str, white_level: float) -> str:
    """`model`; or for "auto" the weights that suit a picture: "white" if its white noise is of
    WHITE_FROM or more on the 0..255 scale (255 * `estimate_sigma`), else "photo"."""
    if model != "auto":
        return model
    return "white" if white_level >= WHITE_FROM or not _is_there("photo") else "photo"


def suited_to(image: np.ndarray, model: str = "auto") -> str:
    """`suited` for an image [h, w, c] in [0, 1], whose white noise is estimated if that decides."""
    return suited(model, 255 * estimate_sigma(image)) if model == "auto" else model


def network_for(channels: int, model: str = "auto") -> Network:
    """The network for images of 1 or 3 channels; a colour model is turned into one of gray images.

    Args:
      model: "photo": that for photographs; "auto": the same, for images that are not known yet (see
        `suited`); "white": those for the white noise of the literature; or a name, a file or a run
        of `load_network`. What is not installed is replaced: photographs by white noise, colour by
        gray, which takes images channel by channel.
    """
    model = suited(model, 0.0)
    if model == "white":
        model = "colour" if channels == 3 and _is_there("colour") else "gray"
    network = load_network(model)
    return network.in_gray if channels == 1 else network


def _is_there(name: str) -> bool:
    from aejax import weights

    return weights.ALIASES.get(name, name) in weights.names()


@dataclasses.dataclass(frozen=True)
class Restored:
    """A denoised image and the levels of its noise (0..255 scale).

    Attributes:
      image: as the input: shape, type.
      sigma: level of the noise: root mean square of what the model takes away when it judges by
        itself, or the estimate for white noise where that is higher and the model agrees.
      removed: root mean square of what was taken away.
      report: what the noise is like (see `noise.NoiseReport`), if asked for.
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
                "divide it by its white, or pass uint8 or uint16"
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
    progress: Callable[[float], None] = lambda done: None,
) -> Restored:
    """As `denoise`, with the level of the noise.

    Args:
      report: analyse the noise, too. All others are those of `denoise`.

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
    network = network_for(flat.shape[2], suited(model, white_level))
    if (sigma == 0 or strength == 0) and not report:
        return Restored(x.copy(), white_level, 0.0)
    given = None  # the level that the network gets
    if network.needs_sigma:
        given = white_level if sigma is None else sigma

    def run(x: np.ndarray) -> np.ndarray:
        return _through(
            network, x, given, self_ensemble=self_ensemble, tile=tile, progress=progress
        )

    blind = run(flat)
    taken = 255 * _rms(flat - blind)  # by the network's own judgement
    amount = strength if sigma is None or given is not None else strength * sigma / max(taken, 1e-3)
    y = _as_much(run, flat, blind, amount, None if sigma is None else sigma * strength / 255)
    removed = 255 * _rms(y - flat)
    level = max(taken, white_level) if taken > 0.5 * white_level else taken
    about = noise_report(flat, blind) if report else None
    if white > 1:
        y = np.round(np.clip(y, 0, 1) * white)
    y = x.copy() if amount == 0 else y.reshape(x.shape).astype(x.dtype)
    return Restored(y, level, removed, about)


def _rms(v: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(v), dtype=np.float64)))


def _through(
    network: Network, x: np.ndarray, sigma: float | None, *, progress, **options
) -> Float[np.ndarray, "h w c"]:
    """x through a network for other channels, if need be: gray through colour as three equal
    channels, colour through gray channel by channel."""
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


def _as_much(
    run: Callable[[np.ndarray], np.ndarray],
    x: Float[np.ndarray, "h w c"],
    y: Float[np.ndarray, "h w c"],
    amount: float,
    level: float | None,
) -> Float[np.ndarray, "h w c"]:
    """x, of which `amount` times the noise is taken away that y lacks.

    Up to 1 that is a share of it. Beyond, x is denoised as though its noise were that much
    stronger: with so much white noise added that the total is `amount` times what x - y has, place
    by place, or `level` everywhere. Always the same noise, so that the result is reproducible.
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
      image: [h, w], [h, w, 1] or [h, w, 3]; float with black 0 and white 1 (values outside are
        where noise goes: they are used, and the result is not clipped), uint8 or uint16.
      sigma: how much to take away: a standard deviation on the 0..255 scale, whatever the type.
        Below what the model finds by itself, so much is taken away; above, the picture is denoised
        as though its noise were that strong. None: what the model finds.
      model: "photo" (the noise of cameras, JPEG), "white" (the white noise of the literature),
        "auto" (one of these: white where that much of the noise is white, see `suited`), "gray",
        "colour", the folder of a run, a weights file.
      strength: 0 leaves the image as it is, 1 takes away all that looks like noise, 2 denoises as
        though there were twice as much.
      self_ensemble: mean over 8 flips and turns: 8 times slower, a little better.
      tile: side of the windows that bound the memory, in pixels.
      progress: called with the share done, 0 to 1.

    Raises:
      UserError: shape, type, values or options that cannot be; no weights of that name.

    >>> clean = aejax.denoise(photo, sigma=15)
    >>> clean.shape, clean.dtype
    ((64, 96, 3), dtype('uint8'))
    """
    return restore(image, sigma, **options).image
