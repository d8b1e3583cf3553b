"""Training objectives of denoisers: supervised (with clean images) and self-supervised (without).

    x = batch["image"] --corrupt--> x_tilde --model--> y --> loss against x, or parts of x_tilde

Each is an objective (see aejax/objective.py). `batch["image"]` [b, h, w, c] is in [0, 1]. In an
experiment that compares methods it is clean, and `corrupt` adds the noise; to train on noisy images
set `corrupt = ()`. The metric "mse" is measured against batch["image"], so it is the error to the
ground truth only if that is clean.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from aejax.corrupt import Spec, chain
from aejax.denoising import models
from aejax.errors import UserError
from aejax.losses import mixture
from aejax.objective import run_model
from aejax.pictures import LUMA
from aejax.trained import Trained
from aejax.types import Aux, Batch, Variables

Images = Float[Array, "b h w c"]


@dataclasses.dataclass(frozen=True)
class _Denoiser:
    """Base of the objectives.

    Args:
      loss: {name in losses.LOSSES: weight}.
      corrupt: corruptions, specs of `corrupt.chain`.
      deepen: width of the coarsest level, if this UNetDenoiser has one level more than the model
        in model.start; 0 if they are the same.
      part: name of the submodule that model.start initialises ("first" of a SimilarDenoiser, with
        model.start_only = "^first/"); "" for the whole model.
    """

    loss: Mapping[str, float]
    corrupt: Sequence[Spec] = ()
    deepen: int = 0
    part: str = ""

    def adapt_start(self, start: Trained, shape: Sequence[int]) -> Variables:
        """The variables of model.start, converted to this model for images of `shape` (h, w, c).

        The model must be the same, except that a colour model may start from a gray one, and a
        UNetDenoiser from one with one level less (`deepen`).
        """
        channels = start.shape[-1] if start.shape else start.config.data.channels
        params = start.variables["params"]
        if shape[-1] == 3 and channels == 1:
            params = models.in_colour(params)
        if self.deepen:
            params = models.with_one_more_level(params, self.deepen)
        if self.part:
            params = {self.part: params}
        return {**start.variables, "params": params}


FLOOR = 3.0 / 255  # added to the noise level, so that the weight of a level near 0 is bounded


@dataclasses.dataclass(frozen=True)
class Supervised(_Denoiser):
    """The loss against the clean image, weighted by noise level.

    The error grows with the noise, roughly as sigma^0.7 for MAE: in a plain mean over levels the
    high ones dominate, and weak noise is removed badly. Each example has the weight
    ((sigma + 3) / 28)^-balance, sigma on the 0..255 scale: a difference in dB then counts about the
    same at every level.

    Args:
      tell: names of conditions that the model is given, such as ("sigma",).
      balance: 0 = equal weights; 0.7 for MAE, 1.4 for MSE.
      measured: take the RMS of x_tilde - x as the level of an example; for corruptions that report
        no sigma.
      gray: fraction of each batch of 3-channel images that is converted to gray (three equal
        channels, each with the noise of the green one), so that a colour model also denoises gray
        images. These examples come first; a fractional number is rounded at random per batch: of 8
        examples with gray = 0.3, two are gray, and a third one in 40 % of the batches.

    Raises:
      UserError: `gray` is not between 0 and 1.
    """

    tell: Sequence[str] = ()
    balance: float = 0.7
    measured: bool = False
    gray: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.gray <= 1:
            raise UserError(f"objective.kwargs.gray = {self.gray} is not between 0 and 1")

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: Array, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        noise, inner = jax.random.split(key)
        x, x_tilde, cond = self._pair(noise, batch["image"])
        inputs = {name: cond[name] for name in self.tell} or None
        out, collections = run_model(model, variables, x_tilde, inputs, inner, train)
        loss = mixture(dict(self.loss))(x, out.y)
        sigma = cond.get("sigma")
        if self.measured:
            sigma = jnp.sqrt(jnp.mean((x_tilde - x) ** 2, (1, 2, 3)))
        loss = self._balanced(loss, sigma)
        metrics = {"loss": loss, "mse": jnp.mean((out.y - x) ** 2, (1, 2, 3))}
        return loss, Aux(metrics, collections, {"x": x, "x_tilde": x_tilde, "y": out.y})

    def _balanced(self, loss: Array, sigma: Array | None) -> Array:
        """The loss [b], weighted by the noise level [b] (in units of the image) if it is known."""
        if not self.balance or sigma is None:
            return loss
        return loss * ((25 / 255 + FLOOR) / (sigma + FLOOR)) ** self.balance

    def _grays(self, x: Images) -> float:
        """Expected number of gray examples in a batch."""
        return self.gray * len(x) if x.shape[-1] == 3 else 0.0

    def _pair(self, key: Array, x: Images) -> tuple[Images, Images, Mapping[str, Array]]:
        """(x, x_tilde, conditions); the first examples of both are converted to gray."""
        if not self._grays(x):
            return x, *chain(self.corrupt)(key, x)
        u = jax.random.uniform(jax.random.fold_in(key, 1))
        is_gray = (u < self._grays(x) - jnp.arange(len(x)))[:, None, None, None]
        x = jnp.where(is_gray, jnp.sum(x * LUMA, -1, keepdims=True), x)
        x_tilde, cond = chain(self.corrupt)(key, x)
        return x, jnp.where(is_gray, x_tilde[..., 1:2], x_tilde), cond

    def conditions(self, batch: Batch, key: Array, train: bool) -> dict[str, Array] | None:
        """The conditions that the model is given, {name: [b]}, or None."""
        cond = chain(self.corrupt)(key, batch["image"])[1]
        return {name: cond[name] for name in self.tell} or None


@dataclasses.dataclass(frozen=True)
class _SelfSupervised(_Denoiser):
    """Base of the objectives on single noisy images or pairs of them."""

    def _noisy(self, key: Array, x: Images) -> Images:
        return chain(self.corrupt)(key, x)[0]

    def conditions(self, batch: Batch, key: Array, train: bool) -> None:
        """None: these models are blind."""
        return None

    def _with_metrics(self, model, variables, batch, key, x_tilde, loss, collections, train):
        """(loss, Aux); in evaluation with y, the output for the whole noisy image, and its MSE."""
        x = batch["image"]
        metrics, pictures = {"loss": loss}, {}
        if not train:
            out, _ = run_model(model, variables, x_tilde, None, key, False)
            metrics["mse"] = jnp.mean((out.y - x) ** 2, (1, 2, 3))
            pictures = {"x": x, "x_tilde": x_tilde, "y": out.y}
        return loss, Aux(metrics, collections, pictures)


@dataclasses.dataclass(frozen=True)
class Noise2Noise(_SelfSupervised):
    """One noisy version of an image as input, another one as target (Lehtinen et al. 2018,
    arXiv:1803.04189). For an MSE loss and zero-mean noise the minimiser is that of clean targets.

    Args:
      pairs: batch["image"] [b, h, w, 2 c] holds the two versions, concatenated in channels. If
        False, `corrupt` is applied twice, and must be random.

    Raises:
      UserError: neither `pairs` nor `corrupt`.
    """

    pairs: bool = False

    def __post_init__(self):
        if not self.pairs and not self.corrupt:
            raise UserError("Noise2Noise needs two noisy versions: set corrupt, or pairs=True")

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: Array, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        first, second, inner = jax.random.split(key, 3)
        if self.pairs:
            a, b = jnp.split(batch["image"], 2, -1)
            batch = {**batch, "image": b}
        else:
            a, b = self._noisy(first, batch["image"]), self._noisy(second, batch["image"])
        out, collections = run_model(model, variables, a, None, inner, train)
        loss = mixture(dict(self.loss))(b, out.y)
        return self._with_metrics(model, variables, batch, inner, a, loss, collections, train)


def blind_spots(
    key: Array, x: Images, share: float, radius: int
) -> tuple[Images, Bool[Array, "b h w 1"]]:
    """Replaces a random `share` of the pixels by another pixel of their neighbourhood.

    Args:
      x: [b, h, w, c].
      share: fraction of replaced pixels.
      radius: the neighbourhood is a square of side 2 radius + 1 without its centre.

    Returns:
      (x with replaced pixels, mask of the replaced pixels).
    """
    b, h, w, _ = x.shape
    where, which = jax.random.split(key)
    hidden = jax.random.uniform(where, (b, h, w, 1)) < share
    side = 2 * radius + 1
    n = jax.random.randint(which, (b, h, w), 0, side**2 - 1)
    n = n + (n >= side**2 // 2)  # never the centre
    rows = jnp.arange(h)[None, :, None] + n // side - radius
    cols = jnp.arange(w)[None, None, :] + n % side - radius
    rows, cols = (_reflected(i, m) for i, m in ((rows, h), (cols, w)))
    replacement = x[jnp.arange(b)[:, None, None], rows, cols]
    # reflection at the border can lead back to the pixel itself: then take its horizontal neighbour
    same = (rows == jnp.arange(h)[None, :, None]) & (cols == jnp.arange(w)[None, None, :])
    beside = jnp.concatenate([x[:, :, 1:], x[:, :, -2:-1]], 2)
    replacement = jnp.where(same[..., None], beside, replacement)
    return jnp.where(hidden, replacement, x), hidden


def _reflected(i: Array, n: int) -> Array:
    i = jnp.abs(i)
    return jnp.where(i >= n, 2 * (n - 1) - i, i)


@dataclasses.dataclass(frozen=True)
class Noise2Void(_SelfSupervised):
    """Blind-spot training on single noisy images: some pixels are replaced by neighbours, and the
    loss is over these pixels alone (Krull et al. 2019, arXiv:1811.10980). For noise that is
    independent between pixels.

    Networks with a residual output work too: at a replaced pixel the input is a neighbour's value.

    Args:
      share: fraction of pixels that are replaced.
      radius: of the neighbourhood from which the replacement is drawn (see `blind_spots`).
    """

    share: float = 0.02
    radius: int = 2

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: Array, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        noise, hide, inner = jax.random.split(key, 3)
        x_tilde = self._noisy(noise, batch["image"])
        masked, hidden = blind_spots(hide, x_tilde, self.share, self.radius)
        out, collections = run_model(model, variables, masked, None, inner, train)
        loss = _masked_loss(hidden, self.loss, x_tilde, out.y)
        return self._with_metrics(model, variables, batch, inner, x_tilde, loss, collections, train)


@dataclasses.dataclass(frozen=True)
class Noise2Self(_SelfSupervised):
    """J-invariant training on single noisy images (Batson and Royer 2019, arXiv:1901.11365): the
    pixels of a grid, one in side^2, are replaced by random values; the loss is over them alone.

    The grid's offset is random per example. The replacement is random and not the mean of the
    neighbours, because with the mean the network learns to rely on the pixel's own value, which in
    evaluation is the noisy one.

    Args:
      side: distance of the grid's pixels.
    """

    side: int = 4

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: Array, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        noise, where, value, inner = jax.random.split(key, 4)
        x_tilde = self._noisy(noise, batch["image"])
        b, h, w, _ = x_tilde.shape
        offset = jax.random.randint(where, (2, b, 1, 1), 0, self.side)
        rows = (jnp.arange(h)[None, :, None] + offset[0]) % self.side == 0
        cols = (jnp.arange(w)[None, None, :] + offset[1]) % self.side == 0
        hidden = (rows & cols)[..., None]
        low, high = x_tilde.min((1, 2, 3), keepdims=True), x_tilde.max((1, 2, 3), keepdims=True)
        random = low + (high - low) * jax.random.uniform(value, x_tilde.shape)
        masked = jnp.where(hidden, random, x_tilde)
        out, collections = run_model(model, variables, masked, None, inner, train)
        loss = _masked_loss(hidden, self.loss, x_tilde, out.y)
        return self._with_metrics(model, variables, batch, inner, x_tilde, loss, collections, train)


def _masked_loss(hidden: Bool[Array, "b h w 1"], loss: Mapping[str, float], x: Images, y: Images):
    """The mean loss over the hidden pixels, [b]. It sets y = x elsewhere, so the loss must be a
    mean over pixels of a function that is 0 where they are equal."""
    y = jnp.where(hidden, y, x)
    share = jnp.maximum(jnp.mean(hidden, (1, 2, 3)), 1.0 / (x.shape[1] * x.shape[2]))
    return mixture(dict(loss))(x, y) / share


def neighbours(key: Array, x: Images) -> tuple[Images, Images, Array]:
    """Two half-size images: in each 2x2 cell, two different adjacent pixels are chosen at random.

    Args:
      x: [b, h, w, c]; an odd last row or column is left out.

    Returns:
      (g1, g2, index): images [b, h/2, w/2, c], and the positions of both in the cell, [b, h/2, w/2,
      2], 0 to 3 in reading order.
    """
    adjacent = [[0, 1], [0, 2], [1, 3], [2, 3]]  # positions in a cell: 0 1 above 2 3
    pairs = jnp.array(adjacent + [p[::-1] for p in adjacent])
    cells = _cells(x)
    index = pairs[jax.random.randint(key, cells.shape[:3], 0, 8)]
    return *_select(cells, index), index


def _cells(x: Images) -> Float[Array, "b h/2 w/2 4 c"]:
    b, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    return x.swapaxes(2, 3).reshape(b, h // 2, w // 2, 4, c)


def _select(cells, index) -> tuple[Images, Images]:
    pixels = jnp.take_along_axis(cells, index[..., None], axis=3)
    return pixels[..., 0, :], pixels[..., 1, :]


@dataclasses.dataclass(frozen=True)
class Neighbor2Neighbor(_SelfSupervised):
    """Training on single noisy images: adjacent pixels of each 2x2 cell give two half-size noisy
    images of nearly the same content, one as input, the other as target (Huang et al. 2021,
    arXiv:2101.02824). A regulariser corrects for the difference of their content.

    Args:
      gamma: weight of the regulariser (2 in the paper for Gaussian noise); 0 leaves it out.
    """

    gamma: float = 2.0

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: Array, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        noise, pick, inner = jax.random.split(key, 3)
        x_tilde = self._noisy(noise, batch["image"])
        g1, g2, index = neighbours(pick, x_tilde)
        out, collections = run_model(model, variables, g1, None, inner, train)
        loss = mixture(dict(self.loss))(g2, out.y)
        if self.gamma:
            fixed = jax.lax.stop_gradient(variables)
            whole, _ = run_model(model, fixed, x_tilde, None, inner, False)
            y1, y2 = _select(_cells(whole.y), index)
            d = out.y - g2 - jax.lax.stop_gradient(y1 - y2)
            loss = loss + self.gamma * jnp.mean(jnp.square(d), (1, 2, 3))
        return self._with_metrics(model, variables, batch, inner, x_tilde, loss, collections, train)


OBJECTIVES = {
    "supervised": Supervised,
    "noise2noise": Noise2Noise,
    "noise2void": Noise2Void,
    "noise2self": Noise2Self,
    "neighbor2neighbor": Neighbor2Neighbor,
}
