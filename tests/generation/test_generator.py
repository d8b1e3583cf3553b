"""Generators from a tiny run to files: verbs, arrays, and what each call promises."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.errors import UserError
from aejax.generation import cli
from aejax.generation import latent as T
from aejax.generation.adversarial import GAN
from aejax.generation.generator import Generator, load_generator
from aejax.generation.vae import HierarchicalVAE, VampAutoEncoder

KEY = jax.random.key(0)
SHAPE = (6, 6, 1)


def config(bottleneck):
    return {
        "name": "", "kwargs": {}, "latent": 4, "init": "random", "dtype": "float32",
        "f_E": {"name": "dense", "hidden": [8]}, "bottleneck": bottleneck,
        "f_D": {"name": "dense", "hidden": [8], "output_activation": "sigmoid"},
    }  # fmt: skip


def make(prior, bottleneck=None, classes=0, **kwargs):
    ae = config(bottleneck or {"name": "identity"})
    model = T.LatentModel(SHAPE, ae, prior, classes, **kwargs)
    x = jax.random.uniform(KEY, (8, *SHAPE))
    cond = {"label": jnp.zeros(8, int)} if classes else None
    variables = jax.jit(lambda: model.init({"params": KEY, "bottleneck": KEY}, x, cond))()
    rng = np.random.default_rng(0)  # NumPy compiles nothing
    params = jax.tree.map(
        lambda p: jnp.asarray(p + 0.1 * rng.normal(size=p.shape), jnp.float32),
        jax.device_get(variables["params"]),
    )
    return model, {**variables, "params": params}, x


FLOW = {"name": "flow_matching", "net": "mlp", "width": 8, "depth": 1}


@pytest.fixture(scope="module")
def flow():
    model, variables, _ = make(FLOW, classes=3)
    return Generator(model, variables, "tiny")


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (4, *SHAPE), dtype=np.uint8)


# The model


def test_frozen_autoencoder_gets_no_gradient_and_the_prior_does():
    model, variables, x = make(FLOW)

    def loss(params):
        out = model.apply({**variables, "params": params}, x, None, True, rngs={"bottleneck": KEY})
        return out.terms["prior"].mean()

    grad = jax.jit(jax.grad(loss))(variables["params"])
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grad["ae"])) == 0.0
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grad["density"])) > 0.0


def test_statistics_are_those_of_all_steps_seen_and_then_stand_still():
    model, variables, _ = make(FLOW, statistics_steps=3)
    batches = [jax.random.uniform(jax.random.key(i), (8, *SHAPE)) for i in range(5)]
    step = jax.jit(lambda v, x: model.apply(
        v, x, None, True, rngs={"bottleneck": KEY}, mutable=["latent"])[1])  # fmt: skip
    for x in batches:
        variables = {**variables, **step(variables, x)}
    encode = jax.jit(lambda v, x: model.apply(v, x, method="encode"))
    h = np.concatenate([encode(variables, x) for x in batches[:3]])
    np.testing.assert_allclose(variables["latent"]["mean"], h.mean(0), rtol=1e-3, atol=1e-5)
    z = jax.jit(lambda x: model.apply(variables, x, method="to_z"))(np.concatenate(batches[:3]))
    np.testing.assert_allclose(np.std(z, axis=0), 1.0, rtol=1e-2)
    back = jax.jit(lambda z: model.apply(variables, z, method="to_h"))(z)
    np.testing.assert_allclose(back, h, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_mixture_on_latents_and_codes_prior_on_codes(pictures):
    model, variables, _ = make({"name": "mixture", "components": 2})
    many = np.random.default_rng(1).integers(0, 256, (600, *SHAPE), dtype=np.uint8)
    only_ae = {"params": {"ae": variables["params"]["ae"]}}  # as a trained autoencoder comes
    fitted = T.fit_prior(model, only_ae, many)
    z = T.latents(model, fitted, many)
    np.testing.assert_allclose(z[:500].std(0), 1.0, rtol=1e-2)
    drawn = jax.jit(lambda v: model.draw_z(v, KEY, 4000))(fitted)
    np.testing.assert_allclose(np.cov(np.asarray(drawn).T), np.cov(z.T), atol=0.15)
    prior = {"name": "autoregressive", "width": 8, "depth": 1, "heads": 2}
    codes, variables, _ = make(prior, {"name": "fsq", "levels": [3, 3], "groups": 2})
    assert codes.unbound_prior().vocabulary == 9
    assert jax.eval_shape(lambda v: codes.draw(v, KEY, 3), variables).shape == (3, *SHAPE)
    drawn = jax.jit(lambda v: codes.draw_z(v, KEY, 3))(variables)
    assert 0 <= int(drawn.min()) and int(drawn.max()) < 9
    generator = Generator(codes, variables)
    assert generator.encode(pictures).dtype == np.int32
    with pytest.raises(UserError, match="codes"):
        generator.interpolate(pictures[0], pictures[1])


def test_codes_prior_needs_codes():
    with pytest.raises(UserError, match="which the bottleneck does not have"):
        make({"name": "maskgit"})


def test_autoencoders_of_another_shape_are_refused():
    variables, theirs = make(FLOW)[1], make(FLOW)[1]
    ae = {"params": theirs["params"]["ae"]}
    whole = T.with_autoencoder(variables, ae, "runs/ae")
    for a, b in zip(jax.tree.leaves(whole["params"]["ae"]), jax.tree.leaves(ae), strict=True):
        np.testing.assert_array_equal(a, b)
    ae["params"] = jax.tree.map(lambda v: v[..., :1], ae["params"])
    with pytest.raises(UserError, match="kwargs.autoencoder: runs/ae is of another model"):
        T.with_autoencoder(variables, ae, "runs/ae")


@pytest.mark.slow
def test_joint_training_has_its_kl_against_the_learned_prior():
    prior = {"name": "coupling", "layers": 2, "width": 8}
    model, variables, x = make(prior, {"name": "gaussian"}, joint=True)

    def terms(params):
        return model.apply({**variables, "params": params}, x, None, True,
                           rngs={"bottleneck": KEY}).terms  # fmt: skip

    sampled = terms(variables["params"])
    np.testing.assert_allclose(sampled["kl"], sampled["log_q"] + sampled["prior"], rtol=1e-5)
    grad = jax.grad(lambda p: terms(p)["kl"].mean())(variables["params"])
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grad["ae"]["f_E"])) > 0


# The generator


def test_samples_follow_the_seed_and_not_the_batch(flow):
    a = flow.sample(7, seed=1, batch=7, steps=2)
    assert a.shape == (7, *SHAPE) and a.dtype == np.uint8
    np.testing.assert_array_equal(a, flow.sample(7, seed=1, batch=7, steps=2))
    assert not np.array_equal(a, flow.sample(7, seed=2, batch=7, steps=2))
    assert flow.sample(5, batch=2, steps=2, label=1, guidance=2.0).shape == (5, *SHAPE)


def test_wrong_requests_are_the_users_errors(flow, pictures):
    for call, words in (
        (lambda: flow.sample(3, label=3), "0 to 2"),
        (lambda: flow.sample(0), "n = 0 is below 1"),
        (lambda: flow.sample(2, temperature=1.0), 'FlowMatching has no "temperature"'),
        (lambda: flow.sample(2, guidance=float("nan")), "finite"),
        (lambda: flow.interpolate(*pictures[:2], steps=0), "steps = 0 is below 1"),
        (lambda: flow.edit(pictures[0], count=0), "count = 0"),
        (lambda: flow.edit(pictures[0], reach=float("nan")), "finite"),
        (lambda: flow.extend(pictures, n=0), "n = 0"),
        (lambda: flow.inpaint(pictures[0], np.eye(6), n=0), "n = 0"),
        (lambda: load_generator("digits", prior="mixture"), "its own prior"),
        (lambda: flow.extend(pictures, strength=2.0), "strength"),
        (lambda: flow.encode(pictures[:, :4]), "pictures of"),
        (lambda: flow.inpaint(pictures[0], np.ones((6, 6))), "all true or all false"),
        (lambda: flow.inpaint(pictures[0], np.ones((5, 6))), "a mask of"),
        (lambda: load_generator(), "either"),
        (lambda: load_generator("fashon-mnist-x"), "no generator"),
    ):
        with pytest.raises(UserError, match=words):
            call()


@pytest.mark.parametrize(
    "model",
    [
        GAN((4, 4, 1), latent=4, widths=(4,)),
        pytest.param(
            HierarchicalVAE((4, 4, 1), (1, 2), (1, 1), (8, 8), (2, 2), fine=4),
            marks=pytest.mark.slow,
        ),
        VampAutoEncoder((4, 4, 1), config({"name": "gaussian"}), components=3),
    ],
    ids=lambda m: type(m).__name__,
)
def test_whatever_draws_can_be_sampled_and_nothing_else(model, pictures):
    rngs = {"params": KEY, "bottleneck": KEY}
    variables = jax.jit(lambda: model.init(rngs, jnp.zeros((2, 4, 4, 1))))()
    generator = Generator(model, variables)
    samples = generator.sample(5, batch=3)
    assert (
        samples.shape == (5, 4, 4, 1) and samples.dtype == np.uint8 and len(np.unique(samples)) > 1
    )
    for call, words in (
        (lambda: generator.sample(2, guidance=2.0), 'no "guidance"'),
        (lambda: generator.sample(2, label=0), "has no classes"),
        (lambda: generator.extend(pictures), "no prior over latents"),
        (lambda: generator.inpaint(pictures[0], np.eye(4)), "flow_matching"),
    ):
        with pytest.raises(UserError, match=words):
            call()


def test_interpolation_begins_and_ends_at_the_reconstructions(flow, pictures):
    way = flow.interpolate(pictures[0], pictures[1], steps=5)
    ends = flow.decode(flow.encode(pictures[:2]))
    assert np.abs(way[[0, -1]].astype(int) - ends).max() <= 1 and len(way) == 5
    same = flow.interpolate(pictures[0], pictures[0], steps=3)
    assert np.abs(same.astype(int) - ends[0]).max() <= 1


def test_edit_walks_through_the_picture_in_the_middle(flow, pictures):
    walks, chosen = flow.edit(pictures[0], count=2, steps=5, reach=2.0)
    assert walks.shape == (10, *SHAPE) and len(set(chosen)) == 2
    z = flow.encode(pictures[:1])
    moved = z.copy().reshape(1, -1)
    moved[0, chosen[0]] = 2.0
    np.testing.assert_array_equal(walks[4], flow.decode(moved.reshape(z.shape))[0])


def test_extend_from_the_same_to_something_else(flow, pictures):
    labels = np.array([0, 1, 2, 0])
    same = flow.extend(pictures, n=2, strength=0.0, labels=labels)
    whole = np.repeat(flow.decode(flow.encode(pictures)), 2, axis=0)
    assert np.abs(same.astype(int) - whole).max() <= 1
    far = flow.extend(pictures, n=2, strength=1.0, labels=labels, seed=3)
    assert not np.array_equal(far[0], far[1]) and not np.array_equal(far[0], whole[0])


def test_inpaint_keeps_what_is_known_and_fits_it(flow):
    x = flow.sample(1, seed=5, steps=4)[0]
    mask = np.zeros((6, 6), bool)
    mask[:, 3:] = True
    filled = flow.inpaint(x, mask, n=2, steps=16)
    np.testing.assert_array_equal(filled[:, :, :3], np.repeat(x[None, :, :3], 2, axis=0))
    assert filled.shape == (2, *SHAPE)


# The verbs


def run(verb, *arguments):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args([str(a) for a in arguments]))


@pytest.fixture
def stand_in(flow, monkeypatch):
    """The verbs with the tiny generator in place of a shipped one."""
    monkeypatch.setattr("aejax.generation.generator.load_generator", lambda *a, **k: flow)


def test_verbs_write_what_the_suffix_says(stand_in, flow, pictures, tmp_path, capsys):
    from PIL import Image

    assert run(cli.sample, "--n", 5, "--steps", 2, "-o", tmp_path / "s.npy") == 0
    assert np.load(tmp_path / "s.npy").shape == (5, 6, 6)
    run(cli.sample, "--n", 4, "--steps", 2, "--class", 1, "-o", tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").size[0] > 12
    for i, picture in enumerate(pictures):
        folder = tmp_path / "in" / "abc"[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[..., 0]).save(folder / f"{i}.png")
    run(cli.extend, tmp_path / "in", "--n", 2, "-o", tmp_path / "out")
    made = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.png"))
    assert len(made) == 8 and {p.parent.name for p in made} == set("abc")
    a, b = tmp_path / "in/a/0.png", tmp_path / "in/b/1.png"
    run(cli.interpolate, a, b, "--steps", 4, "-o", tmp_path / "way.npy")
    assert np.load(tmp_path / "way.npy").shape == (4, 6, 6)
    run(cli.edit, a, "--count", 2, "--steps", 3, "-o", tmp_path / "edit.npy")
    assert np.load(tmp_path / "edit.npy").shape == (6, 6, 6)
    run(cli.inpaint, a, "--box", "0,0,3,6", "--n", 2, "-o", tmp_path / "whole.npy")
    assert np.load(tmp_path / "whole.npy").shape == (2, 6, 6)
    assert "s.npy" in capsys.readouterr().out


def test_verbs_name_the_mistake(stand_in, tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        run(cli.sample, "--n", 1, "--steps", 1, "-o", tmp_path / "x.bmp")
    with pytest.raises(UserError, match="no such file"):
        run(cli.extend, tmp_path / "nothing", "-o", tmp_path / "out")
    with pytest.raises(UserError):
        run(cli.interpolate, tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "x.png")


@pytest.mark.parametrize(
    "words",
    [
        (cli.interpolate, "a.png", "b.png", "-o", "a.png"),
        (cli.edit, "a.png", "-o", "a.png"),
        (cli.extend, "a.png", "-o", "a.png"),
        (cli.inpaint, "a.png", "--mask", "m.png", "-o", "m.png"),
        (cli.extend, "in", "-o", "in"),
    ],
)
def test_no_verb_destroys_an_input(stand_in, tmp_path, monkeypatch, words):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "m.png", "in/000000.png"):
        Image.fromarray(np.zeros((6, 6), np.uint8)).save(name)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.png")}
    for force in ((), ("--force",)):
        with pytest.raises(UserError, match="is an input"):
            run(*words, *force)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.png")} == before


def test_a_bad_picture_does_not_stop_the_others(stand_in, tmp_path, capsys):
    from PIL import Image

    for name in "abc":
        Image.fromarray(np.zeros((6, 6), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert run(cli.extend, tmp_path, "--n", 2, "-o", tmp_path / "more.npy") == 2
    assert len(np.load(tmp_path / "more.npy")) == 4
    err = capsys.readouterr().err
    assert err.count("b.png") == 1 and "not an image" in err


def test_existing_files_need_force(stand_in, tmp_path):
    for out in ("x.png", "x.npy", "folder"):
        words = (cli.sample, "--n", 2, "--steps", 1, "-o", tmp_path / out)
        assert run(*words) == 0
        with pytest.raises(UserError, match="exists? already; --force"):
            run(*words)
        assert run(*words, "--force") == 0


def test_a_photograph_is_not_squeezed_without_a_word(stand_in, tmp_path, capsys):
    from PIL import Image

    Image.fromarray(np.zeros((40, 90, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((6, 6), np.uint8)).save(tmp_path / "b.png")
    run(cli.interpolate, tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "x.png")
    err = capsys.readouterr().err
    assert "cropped and resized to the model's 6x6" in err and "a.png (90x40, colour)" in err
    run(cli.edit, tmp_path / "b.png", "-o", tmp_path / "y.png")
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "box, message",
    [
        ("0,0,9,3", "leaves the picture, 6 high and 6 wide"),
        ("50,50,3,3", "leaves the picture"),
        ("-1,0,3,3", "0 or more"),
        ("0,0,0,3", "1 or more"),
        ("0,0,3", "top,left,height,width"),
    ],
)
def test_a_box_outside_the_picture_is_named(box, message):
    with pytest.raises(UserError, match=message):
        cli.box_mask(box, (6, 6, 1))


def test_names_of_shipped_generators_load():
    from aejax import weights

    for name in ("fashion-mnist", "digits"):
        if name not in weights.names():
            pytest.skip(f"{name} is not shipped yet")
        pictures = load_generator(name).sample(2, steps=2, batch=2)
        assert pictures.shape == (2, 28, 28, 1)


@pytest.mark.slow
def test_the_quickstarts_row_shows_every_shipped_generator(tmp_path):
    from aejax.generation.demo import drawn_pictures
    from aejax.generation.generator import names

    section = drawn_pictures(tmp_path, n=4)
    assert names() == ["digits", "fashion-mnist"] and all(n in section["text"] for n in names())
    assert (tmp_path / section["picture"]).stat().st_size > 4000
