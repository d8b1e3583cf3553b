"""What a denoiser minimises: with clean images (supervised), and without (self-supervised).

    x = batch["image"] --corrupt--> x_tilde --model--> y --loss--> to x, or to parts of x_tilde

Each is an objective (see aejax/objective.py). `batch["image"]` [b, h, w, c] in [0, 1] is what the
user has. In an experiment it is clean and `corrupt` makes it noisy first, so that methods can be
compared; on the user's own noisy images `corrupt = ()`. The metric "mse" is to batch["image"],
which is the truth only in the first case.
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
      loss: weights of losses.LOSSES; corrupt: specs for corrupt.chain.
      deepen: width of the coarsest level, if the UNetDenoiser here has one level more than that of
        model.start; 0 for the same model.
      part: name of the part of this model that model.start is ("first" of a SimilarDenoiser, with
        model.start_only = "^first/"); "" for the whole.
    """

    loss: Mapping[str, float]
    corrupt: Sequence[Spec] = ()
    deepen: int = 0
    part: str = ""

    def adapt_start(self, start: Trained, shape: Sequence[int]) -> Variables:
        """The variables of model.start for images of `shape` (h, w, c): the model must be the same,
        but one in colour may start from a gray one, and a U from one with a level less."""
        channels = start.shape[-1] if start.shape else start.config.data.channels
        params = start.variables["params"]
        if shape[-1] == 3 and channels == 1:
            params = models.in_colour(params)
        if self.deepen:
            params = models.with_one_more_level(params, self.deepen)
        if self.part:
            params = {self.part: params}
        return {**start.variables, "params": params}


FLOOR = 3.0 / 255  # levels below this weigh no more than this one


@dataclasses.dataclass(frozen=True)
class Supervised(_Denoiser):
    """The loss to the clean picture, levels balanced.

    The error falls with the noise, roughly as sigma^0.7 for MAE: in a plain mean over levels the
    strong ones dominate, and nearly clean pictures are denoised badly. Each example is weighed by
    (sigma + 3)^-balance (1 at sigma 25): a decibel then counts about as much at every level.

    Args:
      tell: names of conditions that the model is given, such as ("sigma",).
      balance: 0 = all examples alike; 0.7 for MAE, 1.4 for MSE.
      measured: the level of an example is the root mean square of x_tilde - x; for corruptions
        that report no sigma.
      gray: share of each batch that is gray, of pictures of 3 channels: three equal channels, each
        with the noise of the green one. So one model for colour serves gray images too. They come
        first: of 8 examples and a share of 0.3 two, and a third one in 4 of 10 batches.
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
        given = {name: cond[name] for name in self.tell} or None
        out, collections = run_model(model, variables, x_tilde, given, inner, train)
        loss = mixture(dict(self.loss))(x, out.y)
        sigma = cond.get("sigma")
        if self.measured:
            sigma = jnp.sqrt(jnp.mean((x_tilde - x) ** 2, (1, 2, 3)))
        loss = self._balanced(loss, sigma)
        metrics = {"loss": loss, "mse": jnp.mean((out.y - x) ** 2, (1, 2, 3))}
        return loss, Aux(metrics, collections, {"x": x, "x_tilde": x_tilde, "y": out.y})

    def _balanced(self, loss: Array, sigma: Array | None) -> Array:
        """The loss of each example weighed by its level (that of the image's units), if known."""
        if not self.balance or sigma is None:
            return loss
        return loss * ((25 / 255 + FLOOR) / (sigma + FLOOR)) ** self.balance

    def _grays(self, x: Images) -> float:
        """How many of a batch are gray, in the mean of many batches."""
        return self.gray * len(x) if x.shape[-1] == 3 else 0.0

    def _pair(self, key: Array, x: Images) -> tuple[Images, Images, Mapping[str, Array]]:
        """x, x_tilde and what is known of the noise; the first ones of both are turned gray."""
        if not self._grays(x):
            return x, *chain(self.corrupt)(key, x)
        chance = jax.random.uniform(jax.random.fold_in(key, 1))
        chosen = (chance < self._grays(x) - jnp.arange(len(x)))[:, None, None, None]
        x = jnp.where(chosen, jnp.sum(x * LUMA, -1, keepdims=True), x)
        x_tilde, cond = chain(self.corrupt)(key, x)
        return x, jnp.where(chosen, x_tilde[..., 1:2], x_tilde), cond

    def conditions(self, batch: Batch, key: Array, train: bool) -> dict[str, Array] | None:
        """What the model is given of each example, [b] each."""
        cond = chain(self.corrupt)(key, batch["image"])[1]
        return {name: cond[name] for name in self.tell} or None


@dataclasses.dataclass(frozen=True)
class _SelfSupervised(_Denoiser):
    """Base of the objectives on single noisy images, or on pairs of them."""

    def _noisy(self, key: Array, x: Images) -> Images:
        return chain(self.corrupt)(key, x)[0]

    def conditions(self, batch: Batch, key: Array, train: bool) -> None:
        """None: these models are blind."""
        return None

    def _measured(self, model, variables, batch, key, x_tilde, loss, collections, train):
        """(loss, Aux) with y = the whole network on the whole noisy image."""
        x = batch["image"]
        metrics, pictures = {"loss": loss}, {}
        if not train:
            out, _ = run_model(model, variables, x_tilde, None, key, False)
            metrics["mse"] = jnp.mean((out.y - x) ** 2, (1, 2, 3))
            pictures = {"x": x, "x_tilde": x_tilde, "y": out.y}
        return loss, Aux(metrics, collections, pictures)


@dataclasses.dataclass(frozen=True)
class Noise2Noise(_SelfSupervised):
    """Two noisy versions of each picture, one the target of the other (Lehtinen et al. 2018,
    arXiv:1803.04189): right in expectation for noise of mean zero.

    `pairs=True` takes batch["image"] [b, h, w, 2 c] as the two versions stacked in channels;
    otherwise both are made from it by `corrupt`, which then must be random.
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
        return self._measured(model, variables, batch, inner, a, loss, collections, train)


def blind_spots(
    key: Array, x: Images, share: float, radius: int
) -> tuple[Images, Bool[Array, "b h w 1"]]:
    """x with a `share` of its pixels replaced by another pixel of their neighbourhood (a square of
    2 radius + 1, itself never), and where that was done."""
    b, h, w, _ = x.shape
    where, which = jax.random.split(key)
    hidden = jax.random.uniform(where, (b, h, w, 1)) < share
    side = 2 * radius + 1
    n = jax.random.randint(which, (b, h, w), 0, side**2 - 1)
    n = n + (n >= side**2 // 2)  # the middle is left out
    rows = jnp.arange(h)[None, :, None] + n // side - radius
    cols = jnp.arange(w)[None, None, :] + n % side - radius
    rows, cols = (_reflected(i, m) for i, m in ((rows, h), (cols, w)))
    taken = x[jnp.arange(b)[:, None, None], rows, cols]
    # reflection at a border can lead back (row and column alike): then the pixel below or beside
    same = (rows == jnp.arange(h)[None, :, None]) & (cols == jnp.arange(w)[None, None, :])
    beside = jnp.concatenate([x[:, :, 1:], x[:, :, -2:-1]], 2)
    taken = jnp.where(same[..., None], beside, taken)
    return jnp.where(hidden, taken, x), hidden


def _reflected(i: Array, n: int) -> Array:
    i = jnp.abs(i)
    return jnp.where(i >= n, 2 * (n - 1) - i, i)


@dataclasses.dataclass(frozen=True)
class Noise2Void(_SelfSupervised):
    """Single noisy pictures: some pixels are replaced by neighbours and must be guessed (Krull et
    al. 2019, arXiv:1811.10980). For noise that is independent from pixel to pixel.

    A network with y = x_tilde + correction works: at a hidden pixel its x_tilde is a neighbour's.

    Args:
      share: of pixels hidden at once; radius: of the neighbourhood the replacement comes from.
    """

    share: float = 0.02
    radius: int = 2

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: Array, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        noise, hide, inner = jax.random.split(key, 3)
        x_tilde = self._noisy(noise, batch["image"])
        seen, hidden = blind_spots(hide, x_tilde, self.share, self.radius)
        out, collections = run_model(model, variables, seen, None, inner, train)
        loss = _on(hidden, self.loss, x_tilde, out.y)
        return self._measured(model, variables, batch, inner, x_tilde, loss, collections, train)


@dataclasses.dataclass(frozen=True)
class Noise2Self(_SelfSupervised):
    """J-invariance (Batson and Royer 2019, arXiv:1901.11365): the pixels of a grid, one in side^2,
    are replaced by random values; the loss is over them alone.

    The grid's offset changes from example to example, so that every pixel is in one of the sets J.
    Random values, not means of neighbours: with those the network learns to trust the pixel itself,
    and is wrong to as soon as it sees a whole image.
    """

    side: int = 4

    def __call__(
        self, model: nn.Module, variables: Variables, batch: Batch, key: Array, train: bool
    ) -> tuple[Float[Array, " b"], Aux]:
        noise, where, value, inner = jax.random.split(key, 4)
        x_tilde = self._noisy(noise, batch["image"])
        b, h, w, _ = x_tilde.shape
        at = jax.random.randint(where, (2, b, 1, 1), 0, self.side)
        rows = (jnp.arange(h)[None, :, None] + at[0]) % self.side == 0
        cols = (jnp.arange(w)[None, None, :] + at[1]) % self.side == 0
        hidden = (rows & cols)[..., None]
        low, high = x_tilde.min((1, 2, 3), keepdims=True), x_tilde.max((1, 2, 3), keepdims=True)
        drawn = low + (high - low) * jax.random.uniform(value, x_tilde.shape)
        seen = jnp.where(hidden, drawn, x_tilde)
        out, collections = run_model(model, variables, seen, None, inner, train)
        loss = _on(hidden, self.loss, x_tilde, out.y)
        return self._measured(model, variables, batch, inner, x_tilde, loss, collections, train)


def _on(hidden: Bool[Array, "b h w 1"], loss: Mapping[str, float], x: Images, y: Images):
    """The loss over the hidden pixels alone, as a mean over them. y is x elsewhere, so that any
    loss that is a mean over pixels of a function that is 0 at equality can be used."""
    y = jnp.where(hidden, y, x)
    share = jnp.maximum(jnp.mean(hidden, (1, 2, 3)), 1.0 / (x.shape[1] * x.shape[2]))
    return mixture(dict(loss))(x, y) / share


def neighbours(key: Array, x: Images) -> tuple[Images, Images, Array]:
    """Two half-size pictures from neighbouring pixels of each 2x2 cell, and the choice made:
    (g1, g2, index [b, h/2, w/2, 2]). The two are never the same pixel."""
    beside = [[0, 1], [0, 2], [1, 3], [2, 3]]  # cells are 0 1 over 2 3
    pairs = jnp.array(beside + [p[::-1] for p in beside])
    cells = _cells(x)
    index = pairs[jax.random.randint(key, cells.shape[:3], 0, 8)]
    return *_taken(cells, index), index


def _cells(x: Images) -> Float[Array, "b h/2 w/2 4 c"]:
    b, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    return x.swapaxes(2, 3).reshape(b, h // 2, w // 2, 4, c)


def _taken(cells, index) -> tuple[Images, Images]:
    chosen = jnp.take_along_axis(cells, index[..., None], axis=3)
    return chosen[..., 0, :], chosen[..., 1, :]


@dataclasses.dataclass(frozen=True)
class Neighbor2Neighbor(_SelfSupervised):
    """Single noisy pictures: two neighbouring pixels of each 2x2 cell make two small noisy pictures
    of nearly the same thing (Huang et al. 2021, arXiv:2101.02824); a regulariser takes off the
    difference between what they show.

    Args:
      gamma: weight of the regulariser (2 in the paper for Gaussian noise).
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
            y1, y2 = _taken(_cells(whole.y), index)
            d = out.y - g2 - jax.lax.stop_gradient(y1 - y2)
            loss = loss + self.gamma * jnp.mean(jnp.square(d), (1, 2, 3))
        return self._measured(model, variables, batch, inner, x_tilde, loss, collections, train)


OBJECTIVES = {
    "supervised": Supervised,
    "noise2noise": Noise2Noise,
    "noise2void": Noise2Void,
    "noise2self": Noise2Self,
    "neighbor2neighbor": Neighbor2Neighbor,
}
