"""Low-rank factorisation of trained matrices by SVD: W = U S V' -> (U sqrt(S)) (sqrt(S) V')."""

import dataclasses
import json

import numpy as np

from aejax.config import from_json, to_json
from aejax.errors import UserError
from aejax.nets.autoencoder import build_model
from aejax.trained import Trained
from aejax.types import Variables


def of_rank(trained: Trained, rank: int) -> Trained:
    """A copy of a dense autoencoder in which every matrix has rank `rank`: the best approximation
    in least squares (Eckart and Young, 1936). Fine-tune it afterwards.

    Raises:
      UserError: a model of another kind or with low-rank matrices already, or a rank below 1.
    """
    model = trained.config.model
    is_dense = not model.name and (model.f_E.name, model.f_D.name) == ("dense", "dense")
    if not is_dense or model.f_E.get("rank") or model.f_D.get("rank"):
        raise UserError(
            f'{trained.name}: --rank is for autoencoders with f_E and f_D "dense" and matrices of '
            "full rank"
        )
    if rank < 1:
        raise UserError(f"--rank {rank}: a whole number from 1")
    stored = json.loads(to_json(trained.config))
    params: Variables = {}
    for side in ("f_E", "f_D"):
        stored["model"][side]["rank"] = rank
        parts = dict(trained.variables["params"][side])
        layers = parts.pop("net") if model.init == "pca" else parts
        factored = {
            name.replace("Dense_", "LowRankDense_"): factors(layer, rank)
            for name, layer in layers.items()
        }
        params[side] = parts | {"net": factored} if model.init == "pca" else factored
    config = from_json(json.dumps(stored))
    params = dict(trained.variables["params"]) | params
    return dataclasses.replace(
        trained,
        model=build_model(config.model, trained.known_shape),
        variables={**trained.variables, "params": params},
        config=config,
    )


def factors(layer: Variables, rank: int) -> Variables:
    """The parameters of a LowRankDense that approximates a Dense with the parameters `layer`.

    >>> f = factors({"kernel": np.ones((4, 3)), "bias": np.zeros(3)}, rank=1)
    >>> f["u"]["kernel"].shape, f["v"]["kernel"].shape
    ((4, 1), (1, 3))
    """
    kernel = np.asarray(layer["kernel"], np.float64)
    u, s, v = np.linalg.svd(kernel, full_matrices=False)
    missing = max(0, rank - len(s))
    u, v = u[:, :rank] * np.sqrt(s[:rank]), np.sqrt(s[:rank])[:, None] * v[:rank]
    u, v = np.pad(u, ((0, 0), (0, missing))), np.pad(v, ((0, missing), (0, 0)))
    return {
        "u": {"kernel": u.astype(np.float32)},
        "v": {"kernel": v.astype(np.float32), "bias": np.asarray(layer["bias"])},
    }
