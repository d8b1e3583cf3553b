"""Negative log-likelihood of a latent-variable model on a test set, by importance sampling."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from aejax.generation.features.batches import padded_batches
from aejax.generation.likelihood import log_weight
from aejax.generation.metrics import bits_per_dim, iwae_nll
from aejax.generation.objective import binarise
from aejax.nets.applied import applied
from aejax.objective import rngs_of
from aejax.types import Variables


def importance_nll(
    model: nn.Module,
    variables: Variables,
    images: UInt8[np.ndarray, "n h w c"],
    likelihood: str,
    arguments: Mapping[str, object] | None = None,
    binarised: str = "",
    samples: int = 500,
    batch: int = 100,
    chunk: int = 10,
    seed: int = 0,
) -> dict[str, float | int]:
    """-log mean_k p(x|z_k) p(z_k) / q(z_k|x) in nats, mean over the images (IWAE-`samples`, Burda
    et al. 2016, arXiv 1509.00519).

    Args:
      model: its output, with train=True, has the terms "log_q" and "log_p" of the sampled z.
      likelihood, arguments: as of `objective.Evidence`.
      binarised: as `how` of `binarise`.
      samples: number of z for each image.
      batch: images at once.
      chunk: samples of z at once.

    Returns:
      "nll" and "elbo" (nats per image; elbo is the negative ELBO, -mean_k of the log weights, an
      upper bound of nll), "bits_per_dim", "stderr" of nll over images, "n" images, "samples".

    Raises:
      UserError: the model samples no latents.
    """
    images = np.asarray(images)
    chunk = min(chunk, samples)
    chunks = -(-samples // chunk)

    @jax.jit
    def log_weights(variables, x, key):
        x = binarise(x.astype(jnp.float32) / 255.0, binarised, jax.random.key(seed))

        def one_sample(key):
            out = applied(model, variables, x, None, train=True, rngs=rngs_of(key))
            return log_weight(likelihood, x, out, **dict(arguments or {}))

        # under vmap x is encoded once for all samples
        return jax.vmap(one_sample)(jax.random.split(key, chunk))

    nlls, bounds, key = [], [], jax.random.key(seed)
    for i, (x, count) in enumerate(padded_batches(images, batch)):
        keys = jax.random.split(jax.random.fold_in(key, i * batch), chunks)
        log_w = np.concatenate([log_weights(variables, x, k) for k in keys])[:samples]
        nlls.append(iwae_nll(log_w)[:count])
        bounds.append(-np.asarray(log_w, np.float64).mean(0)[:count])
    nll = np.concatenate(nlls)
    levels = 256 if likelihood in ("normal", "gaussian") else 1
    return {
        "nll": float(nll.mean()),
        "elbo": float(np.concatenate(bounds).mean()),
        "bits_per_dim": bits_per_dim(float(nll.mean()), int(np.prod(images.shape[1:])), levels),
        "stderr": float(nll.std() / np.sqrt(len(nll))),
        "n": len(nll),
        "samples": samples,
    }
