"""`model.remat`: less is kept for the backward pass, no number and no name changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.config import base, from_json, part, to_json, with_defaults
from aejax.errors import UserError
from aejax.nets.autoencoder import build_model
from tests.nets.test_vit import moved

KEY = jax.random.key(0)
OPPONENT = "aejax.generation.adversarial:AutoEncoderWithOpponent"
CONV = part("conv", widths=(8, 8), spatial=True)


def config(kind):
    c = base()
    c.model.latent = 6
    if kind == "codec":
        c.model.name, c.model.latent = "aejax.codec.nets:Codec", 8
        c.model.kwargs = {"width": (8, 8), "encoder": (1, 1), "decoder": (1, 1), "slices": (4, 4),
                          "z": 4, "features": 8, "context": 8}  # fmt: skip
    elif kind == "unet":
        c.model.name = "aejax.denoising.models:UNetDenoiser"
        c.model.kwargs = {"widths": (8, 16), "blocks": (1, 1, 1)}
    elif kind == "vqgan":
        c.model.f_E = c.model.f_D = part("vqgan", widths=(8, 8), depth=1)
    else:
        c.model.f_E, c.model.f_D = CONV, CONV
        c.model.init = "pca" if kind == "pca" else "random"
    if kind == "opponent":
        c.model.kwargs, c.model.name = {"autoencoder": c.model.to_dict(), "widths": (4,)}, OPPONENT
    return c


@pytest.mark.parametrize(
    "kind",
    ["conv", *(pytest.param(k, marks=pytest.mark.slow)
               for k in ("pca", "vqgan", "opponent", "codec", "unet"))],
)  # fmt: skip
def test_same_loss_gradients_and_names(kind):
    c, shape = config(kind), (16, 16, 3)
    x = jax.random.uniform(KEY, (2, *shape))
    plain = build_model(c.model, shape)
    c.model.remat = True
    again = build_model(c.model, shape)
    rngs = {"params": KEY, "bottleneck": KEY}
    variables = plain.init(rngs, x)
    structure = jax.tree.structure(jax.eval_shape(lambda: again.init(rngs, x)))
    assert structure == jax.tree.structure(variables)
    params = moved(variables["params"])

    def loss(net):
        def of(params):
            rest = variables | {"params": params}
            return jnp.mean(jnp.square(net.apply(rest, x, None, False, rngs=rngs).y - x))

        return of

    a, b = (jax.value_and_grad(loss(net))(params) for net in (plain, again))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), a, b)
    kept = [str(jax.make_jaxpr(jax.grad(loss(net)))(params)) for net in (plain, again)]
    assert ["remat" in text for text in kept] == [False, True]


def test_a_part_may_have_it_off():
    c = config("vqgan")
    c.model.remat, c.model.f_D = True, part("vqgan", widths=(8, 8), remat=False)
    net = build_model(c.model, (16, 16, 3))
    assert net.f_E.remat and not net.f_D.remat


def test_a_model_that_cannot_says_so():
    c = base()
    c.model.name, c.model.remat = "aejax.generation.adversarial:GAN", True
    with pytest.raises(UserError, match='model.remat: ".*GAN" has no field "remat"'):
        build_model(c.model, (8, 8, 1))


def test_configs_from_before_load_without_it():
    import json

    stored = json.loads(to_json(base()))
    del stored["model"]["remat"]
    assert from_json(json.dumps(with_defaults(stored))).model.remat is False
    build_model(stored["model"], (8, 8, 1))
