"""Magnitude pruning as an optimiser: the smallest weights become zero while the rest is trained.

    c.optim.name = "aejax.training.prune:pruned"
    c.optim.kwargs.sparsity = 0.8      # with any of optim.OPTIMISERS inside, adam by default
    c.optim.kwargs.end = 2000          # steps until it is reached; 0 = at once
    c.model.start = "runs/dense"       # pruning starts from a trained model

The masks are part of the optimiser's state, so the model does not know of them, and a resumed run
keeps them. After `end` they no longer change. Kernels (parameters of two axes or more) are pruned,
biases and scales are not.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from aejax.errors import UserError
from aejax.registry import lookup
from aejax.training.optim import OPTIMISERS

SCOPES = ("global", "layer")


class PruneState(NamedTuple):
    """State of the optimiser `pruned`.

    Attributes:
      step: number of steps taken.
      masks: of the parameters, true where a weight is kept; a single True for one that is never
        pruned.
      inner: the state of the optimiser.
    """

    step: Int[Array, ""]
    masks: PyTree
    inner: optax.OptState


def pruned(
    learning_rate: optax.Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    weight_decay: float = 0.0,
    *,
    sparsity: float = 0.8,
    scope: str = "global",
    begin: int = 0,
    end: int = 0,
    every: int = 50,
    optimiser: str = "adam",
    masks: str = "",
) -> optax.GradientTransformation:
    """An optimiser under which a share of the weights of all kernels becomes and stays zero.

    The share rises from `begin` to `end` as sparsity * (1 - (1 - t)^3): fast at first, while many
    weights are redundant (Zhu and Gupta, 2017, arXiv:1710.01878). A pruned weight stays zero. Leave
    optim.ema at 0: averaged parameters contain values from before the pruning.

    Args:
      sparsity: share of zeros at the end, in [0, 1).
      scope: "global" compares all weights of the model, "layer" those of each kernel alone.
      begin, end: steps; the same = at once, at the step `begin`.
      every: steps between two updates of the masks.
      optimiser: one of optim.OPTIMISERS.
      masks: a pruned model whose zeros are used from the first step. With that model's config and
        seed this trains its lottery ticket (Frankle and Carbin, 2019, arXiv:1803.03635).

    Raises:
      UserError: a share, scope, step or optimiser that cannot be.
    """
    if not 0.0 <= sparsity < 1.0:
        raise UserError(f"optim.kwargs.sparsity = {sparsity}: a share of at least 0 and below 1")
    if scope not in SCOPES:
        raise UserError(f'optim.kwargs.scope = "{scope}": {" or ".join(SCOPES)}')
    if not 0 <= begin <= max(begin, end) or every < 1 or end < 0 or 0 < end < begin:
        raise UserError(
            f"optim.kwargs: begin {begin}, end {end}, every {every}: 0 <= begin <= end, every >= 1"
        )
    options = {"b1": b1, "b2": b2, "weight_decay": weight_decay}
    tx = lookup(optimiser, OPTIMISERS, "optimiser")(options, learning_rate)

    def init(params: PyTree) -> PruneState:
        kept = nonzero(masks, params) if masks else jax.tree.map(_all_kept, params)
        return PruneState(jnp.int32(0), kept, tx.init(params))

    def update(grads: PyTree, state: PruneState, params: PyTree) -> tuple[PyTree, PruneState]:
        updates, inner = tx.update(masked(grads, state.masks), state.inner, params)
        kept = state.masks
        if not masks:
            last = max(begin, end)
            is_due = (state.step - begin) % every == 0
            is_due = (state.step >= begin) & (state.step <= last) & (is_due | (state.step == last))
            share = sparsity * risen(state.step, begin, end)
            moved = masked(jax.tree.map(jnp.add, params, updates), kept)
            kept = jax.lax.cond(
                is_due, lambda: largest(moved, share, scope == "global"), lambda: state.masks
            )
        updates = jax.tree.map(lambda u, p, m: jnp.where(m, u, -p), updates, params, kept)
        return updates, PruneState(state.step + 1, kept, inner)

    # pyrefly: ignore [bad-argument-type]
    return optax.GradientTransformation(init, update)


def risen(step: Int[Array, ""], begin: int, end: int) -> Float[Array, ""]:
    """The share of the final sparsity at a step: 1 - (1 - t)^3 between `begin` and `end`."""
    t = jnp.clip((step - begin) / (end - begin), 0.0, 1.0) if end > begin else 1.0
    return jnp.where(step < begin, 0.0, 1.0 - (1.0 - t) ** 3)


def _all_kept(p: Array) -> Array:
    return jnp.ones(p.shape if p.ndim > 1 else (), bool)


def masked(tree: PyTree, masks: PyTree) -> PyTree:
    """`tree` with zeros where the masks are false."""
    return jax.tree.map(lambda v, m: jnp.where(m, v, 0.0), tree, masks)


def largest(params: PyTree, share: Float[Array, ""], together: bool) -> PyTree:
    """Masks that drop the smallest `share` of weights: of all kernels together, or of each one."""
    kernels = [jnp.abs(p).reshape(-1) for p in jax.tree.leaves(params) if p.ndim > 1]
    limit = _limit(jnp.concatenate(kernels), share) if together else None

    def mask(p: Array) -> Array:
        if p.ndim < 2:
            return jnp.ones((), bool)
        size = jnp.abs(p)
        return size > (_limit(size.reshape(-1), share) if limit is None else limit)

    return jax.tree.map(mask, params)


def _limit(sizes: Float[Array, " n"], share: Float[Array, ""]) -> Float[Array, ""]:
    """The largest of the `share` smallest numbers; -1 if that is none of them."""
    count = jnp.floor(share * sizes.size + 0.5).astype(jnp.int32)
    return jnp.where(count > 0, jnp.sort(sizes)[jnp.maximum(count - 1, 0)], -1.0)


def nonzero(model: str, params: PyTree) -> PyTree:
    """Masks of a trained model: true where a weight is not zero.

    Raises:
      UserError: no such model, or it is of other shapes.
    """
    from aejax.loading import load
    from aejax.training.start import check_fit

    theirs = load(model).variables["params"]
    check_fit({"params": theirs}, {"params": params}, f"optim.kwargs.masks: {model}",
              "it is the pruned run of this very config")  # fmt: skip
    return jax.tree.map(
        lambda p, t: jnp.asarray(t) != 0 if p.ndim > 1 else jnp.ones((), bool), params, theirs
    )


def sparsity_of(params: Mapping[str, PyTree]) -> float:
    """The share of zeros among the weights of all kernels."""
    kernels = [jnp.asarray(p) for p in jax.tree.leaves(params) if jnp.ndim(p) > 1]
    return 1.0 - sum(int(jnp.count_nonzero(k)) for k in kernels) / sum(k.size for k in kernels)
