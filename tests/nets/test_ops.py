"""Every form of every operation against the plain one: values, gradients, and transformations."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from aejax.errors import UserError
from aejax.machine import speed
from aejax.nets import ops, target
from tests.helpers import others_slow

TOLERANCE = {"cpu_f32": 1e-5, "cpu_bf16": 1e-2}
FORMS = pytest.mark.parametrize("form", others_slow(["cpu_f32", "cpu_bf16"], "cpu_f32"))


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def value_and_gradients(f, args):
    def loss(*args):
        y = f(*args)
        return jnp.vdot(y, jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

    return f(*args), jax.grad(loss, tuple(range(len(args))))(*args)


def assert_equal_to_plain(f, args, form, tolerance=None, how=jax.jit):
    """Each array within `tolerance` of its largest absolute value."""
    with ops.forms(all="plain"):
        expected = how(lambda *a: value_and_gradients(f, a))(*args)
    with ops.forms(all=form):
        found = how(lambda *a: value_and_gradients(f, a))(*args)
    for e, r in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert e.shape == r.shape and e.dtype == r.dtype
        scale = np.abs(e).max()
        assert scale > 0
        np.testing.assert_allclose(r, e, rtol=0, atol=(tolerance or TOLERANCE[form]) * scale)


@FORMS
@pytest.mark.parametrize("shape, o", [((3, 7), 5), ((2, 5, 3, 17), 9), ((4, 6, 4, 32), 64)])
def test_dense(form, shape, o):
    assert_equal_to_plain(ops.dense, (normal(0, *shape), normal(1, shape[-1], o)), form)


@FORMS
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "n, h, w, c, o, k",
    [
        (2, 7, 9, 5, 3, 3),  # odd everything
        (3, 8, 6, 3, 16, 3),  # few channels in: patches of x
        (3, 6, 8, 16, 3, 3),  # few channels out: shifts of both
        (4, 4, 4, 32, 32, 3),  # several pictures in one product
        (1, 33, 31, 8, 8, 3),
        (2, 5, 7, 4, 6, 5),
        (2, 6, 9, 4, 6, 4),  # an even kernel is not centred
        (2, 6, 5, 4, 6, 1),
        (1, 1, 2, 4, 6, 3),  # a picture smaller than the kernel
        (6, 20, 22, 128, 128, 3),  # fewer multiplications
    ],
)
def test_conv(form, stride, n, h, w, c, o, k):
    args = normal(0, n, h, w, c), normal(1, k, k, c, o)
    assert_equal_to_plain(lambda x, w: ops.conv(x, w, stride), args, form)


@pytest.mark.parametrize("k", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", [(2, 7, 9, 5), (1, 19, 4, 3), (3, 2, 1, 4)])
def test_depthwise(shape, k):
    assert_equal_to_plain(ops.depthwise, (normal(0, *shape), normal(1, k, k, shape[-1])), "cpu_f32")


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 5, 7), (2, 3, 4)])
def test_per_channel(shape):
    x, s = normal(0, *shape), normal(1, shape[-1])
    for f in (ops.channel_sum, ops.channel_norm):
        assert_equal_to_plain(f, (x,), "cpu_f32")
    for f in (ops.add_bias, ops.channel_norm):
        assert_equal_to_plain(f, (x, s), "cpu_f32")
    np.testing.assert_allclose(jnp.mean(ops.channel_norm(x) ** 2, -1), 1, rtol=1e-4)


def test_integers_are_exact_in_every_form():
    """Integers to 256 are bfloat16 numbers, and their sums below 2^24 are exact in any order: under
    the highest precision, which leaves no form with fewer multiplications."""
    x = jnp.round(normal(0, 2, 6, 5, 128) * 20).clip(-256, 256)
    w = jnp.round(normal(1, 3, 3, 128, 128) * 20).clip(-256, 256)
    found = []
    for form in ops.FORMS:
        with ops.forms(all=form), jax.default_matmul_precision("highest"):
            found.append((ops.conv(x, w), ops.dense(x, w[0, 0])))
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, found[0], other)


def test_bfloat16_stays_bfloat16():
    x, w = normal(0, 2, 6, 6, 8).astype(jnp.bfloat16), normal(1, 3, 3, 8, 8)
    for form in ops.FORMS:
        with ops.forms(all=form):
            for y in (ops.conv(x, w), ops.dense(x, w[0, 0]), ops.depthwise(x, w[:, :, 0])):
                assert y.dtype == jnp.bfloat16
            for y in (ops.channel_norm(x, w[0, 0, 0]), ops.add_bias(x, w[0, 0, 0])):
                assert y.dtype == jnp.bfloat16
            g = jax.grad(lambda w: ops.conv(x, w).astype(jnp.float32).sum())(w)
            assert g.dtype == jnp.float32


def everything(x, w, d):
    """One of each operation: x [b, h, w, 6], w [3, 3, 6, 6], d [3, 3, 6]."""
    y = ops.add_bias(ops.conv(x, w), d[0, 0])
    y = ops.depthwise(ops.channel_norm(y, d[1, 1]), d)
    y = ops.conv(ops.dense(y, w[1, 1]), w, 2)
    return y + ops.channel_sum(y)


def arguments(b=8):
    return normal(0, b, 6, 10, 6), normal(1, 3, 3, 6, 6), normal(2, 3, 3, 6)


@pytest.mark.slow
@FORMS
def test_under_transformations(form):
    x, w, d = arguments()
    tol = 2e-5 if form == "cpu_f32" else 3e-2  # a chain of five operations
    check = lambda f, args, **kw: assert_equal_to_plain(f, args, form, tol, **kw)  # noqa: E731
    check(everything, (x, w, d))
    check(everything, (x, w, d), how=lambda f: f)  # eagerly
    check(jax.checkpoint(everything), (x, w, d))
    xs, ws = x.reshape(4, 2, 6, 10, 6), jnp.stack([w, -w, w / 2, w + 1])
    check(jax.vmap(everything, (0, None, None)), (xs, w, d))
    check(jax.vmap(everything, (0, 0, None)), (xs, ws, d))

    def scanned(x, w, d):
        return jax.lax.scan(lambda c, x: (c, everything(x + c, w, d)), 0.1, x)[1]

    check(scanned, (xs, w, d))


@FORMS
def test_pmap_and_sharded_jit(form):
    x, w, d = arguments()
    step = jax.grad(lambda x, w, d: (everything(x, w, d) ** 2).mean(), (1, 2))
    tol = 2e-5 if form == "cpu_f32" else 5e-2
    local = lambda x, w, d: jax.lax.pmean(step(x, w, d), "data")  # noqa: E731
    with ops.forms(all="plain"):
        expected = jax.vmap(step, (0, None, None))(x.reshape(8, 1, *x.shape[1:]), w, d)
        expected = jax.tree.map(lambda g: g.mean(0), expected)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    specs = {"mesh": mesh, "in_specs": (P("data"), P(), P()), "out_specs": P(), "check_vma": False}
    with ops.forms(all=form):
        found = [
            jax.tree.map(
                lambda g: g[0],
                jax.pmap(local, "data", in_axes=(0, None, None))(
                    x.reshape(8, 1, *x.shape[1:]), w, d
                ),
            ),
            jax.jit(jax.shard_map(local, **specs))(x, w, d),
        ]
    for f in found:
        for e, r in zip(expected, f, strict=True):
            np.testing.assert_allclose(r, e, rtol=0, atol=tol * np.abs(e).max())


def test_batch_sharded_by_the_compiler():
    """Automatic axes, with which every form runs."""
    x, w, d = arguments()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    f = jax.jit(jax.grad(lambda x, w, d: (everything(x, w, d) ** 2).mean(), (0, 1, 2)))
    with ops.forms(all="plain"):
        expected = f(x, w, d)
    found = f(jax.device_put(x, NamedSharding(mesh, P("data"))), w, d)
    for e, r in zip(expected, found, strict=True):
        np.testing.assert_allclose(r, e, rtol=0, atol=2e-5 * np.abs(e).max())


def test_batch_sharded_over_an_explicit_mesh():
    """The default of jax.make_mesh: no loop over a sharded axis, so plain forms are chosen."""
    x, w, d = arguments()
    f = jax.jit(jax.grad(lambda x, w, d: (everything(x, w, d) ** 2).mean(), (0, 1, 2)))
    with ops.forms(all="plain"):
        expected = f(x, w, d)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        found = f(jax.device_put(x, P("data")), jax.device_put(w, P()), jax.device_put(d, P()))
    for e, r in zip(expected, found, strict=True):
        np.testing.assert_allclose(r, e, rtol=0, atol=2e-5 * np.abs(e).max())


def test_shuffle_inverts_unshuffle():
    x = normal(0, 2, 6, 9, 5)
    y = ops.unshuffle(x, 3)
    assert y.shape == (2, 2, 3, 45)
    np.testing.assert_array_equal(y[1, 1, 2, :5], x[1, 3, 6])
    np.testing.assert_array_equal(ops.shuffle(y, 3), x)
    with pytest.raises(UserError, match="pad it"):
        ops.unshuffle(x, 2)
    with pytest.raises(UserError, match="channels"):
        ops.shuffle(x, 2)


@pytest.fixture
def gain(monkeypatch, tmp_path):
    """Makes bfloat16 products so many times faster than float32 ones, by the file that says so."""

    def set_gain(times):
        monkeypatch.setenv("AEJAX_CACHE", str(tmp_path / str(times)))
        speed.measurement_file().parent.mkdir()
        speed.measurement_file().write_text(json.dumps({"f32": 1.0, "bf16": times}))

    return set_gain


def test_forms_are_chosen_and_overridden(gain):
    gain(1.0)
    assert ops.form("conv") == "cpu_f32"
    with ops.forms(conv="plain"):
        assert (ops.form("conv"), ops.form("dense")) == ("plain", "cpu_f32")
        with ops.forms(all="auto", dense="cpu_bf16"):
            assert (ops.form("conv"), ops.form("dense")) == ("cpu_f32", "cpu_bf16")
        assert ops.form("conv") == "plain"
    gain(1.9)
    assert (ops.form("conv"), ops.form("dense")) == ("cpu_f32", "cpu_bf16")
    assert ops.form("dense", normal(0, 32, 64), 32 * 64 * 64) == "cpu_f32"  # too small to gain
    gain(4.0)
    assert ops.form("conv") == ops.form("dense") == "cpu_bf16"
    assert ops.form("depthwise") == "cpu_f32"  # matrix units are of no use to it
    with jax.default_matmul_precision("highest"):
        assert ops.form("conv") == "cpu_f32"
    traced = ops.traced_with({"conv": "plain"}, lambda: ops.form("conv"))
    assert (traced(), ops.form("conv")) == ("plain", "cpu_bf16")
    with target.compiling_for("gpu"):
        assert ops.form("conv") == "plain"
    for wrong in ({"convolution": "plain"}, {"conv": "fast"}):
        with pytest.raises(UserError, match="known"):
            with ops.forms(**wrong):
                pass


@pytest.mark.parametrize("c, o, taken", [(12, 64, False), (32, 32, False), (64, 64, True)])
def test_narrow_products_stay_in_float32(gain, c, o, taken):
    gain(1.9)
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1 << 14, c), (c, o)))
    assert ("bf16" in str(jax.make_jaxpr(ops.dense)(x, w))) == taken


def test_a_form_is_part_of_what_jit_compiles():
    f = jax.jit(lambda x, w: ops.conv(x, w))
    x, w = normal(0, 2, 8, 8, 4), normal(1, 3, 3, 4, 4)
    with ops.forms(conv="plain"):
        plain = f(x, w)
    with ops.forms(conv="cpu_bf16"):
        rough = f(x, w)
    assert 0 < np.abs(plain - rough).max() < 1e-2 * np.abs(plain).max()
