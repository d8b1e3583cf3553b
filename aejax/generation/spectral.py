"""A decoder with spectrally normalised kernels, the regulariser of RAE-SN."""

import math
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from aejax.nets.f_D import F_D
from aejax.registry import lookup, parameters
from aejax.types import Cond


def spectral_norm(kernel: Float[Array, "..."], iterations: int = 8) -> Float[Array, ""]:
    """The largest singular value of a kernel, reshaped to a matrix [inputs, outputs].

    It is approximated by power iteration from a fixed vector; the gradient flows through the kernel
    only.

    >>> w = np.diag([3.0, 1.0]).astype(np.float32)
    >>> round(float(aejax.generation.spectral.spectral_norm(w)), 4)
    3.0
    """
    w = kernel.reshape(-1, kernel.shape[-1])
    u, v = jnp.zeros(w.shape[0]), jnp.ones(w.shape[1]) / math.sqrt(w.shape[1])
    for _ in range(iterations):
        u = w @ v
        u = u / (jnp.linalg.norm(u) + 1e-12)
        v = w.T @ u
        v = v / (jnp.linalg.norm(v) + 1e-12)
    u, v = jax.lax.stop_gradient((u, v))
    return u @ w @ v


class SpectralDecoder(nn.Module):
    """Any f_D, with the largest singular value of each kernel limited to `bound` (RAE-SN, Ghosh et
    al. 2020, arXiv 1903.12436; spectral normalisation: Miyato et al. 2018, arXiv 1802.05957).

        h -> f_D with each kernel divided by max(its largest singular value / bound, 1) -> y

    Attributes:
      latent, shape, dtype: filled from the config, as for every f_D.
      decoder: name of the f_D.
      bound: largest singular value of a kernel.
      arguments: of that f_D.
    """

    latent: int
    shape: Sequence[int]
    decoder: str = "conv"
    bound: float = 1.0
    arguments: Mapping[str, object] | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, h: Float[Array, "b *s k"], cond: Cond = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        """h -> y through the bounded kernels."""
        cls = lookup(self.decoder, F_D, "f_D")
        filled = {"latent": self.latent, "shape": tuple(self.shape), "dtype": self.dtype}
        filled = {k: v for k, v in filled.items() if k in parameters(cls)}
        arguments = filled | dict(self.arguments or {})

        def bounded(variables):
            def bounded_if_kernel(path, w):
                if getattr(path[-1], "key", "") != "kernel":
                    return w
                return w / jnp.maximum(spectral_norm(w) / self.bound, 1.0)

            return jax.tree_util.tree_map_with_path(bounded_if_kernel, variables)

        mapped = nn.map_variables(cls, "params", trans_in_fn=bounded, init=True)
        return mapped(**arguments)(h, cond, train)
