"""`aejax export`: what it writes is the model, in a process that has neither aejax nor flax."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import aejax
from aejax.cli import main
from aejax.config import part
from aejax.errors import UserError
from aejax.export import stablehlo
from aejax.export.parts import part_of
from aejax.nets import ops
from tests.helpers import PROGRAMS, tiny

# (model, part, the sizes b, h, w that it is run with): every function that can leave the package.
SHIPPED = [
    ("gray", "denoiser", (2, 3, 2)),
    ("colour", "denoiser", (1, 2, 3)),
    ("codec", "h", (1, 2, 1)),
    ("codec", "f_E", (1, 1, 2)),
    ("codec", "f_D", (2, 3, 1)),
    ("codec-ms-ssim", "f_D", (1, 1, 2)),
    ("digits", "autoencoder", (3, 1, 1)),
    ("digits", "f_E", (3, 1, 1)),
    ("digits", "f_D", (2, 1, 1)),
    ("digits", "sampler", (2, 1, 1)),
    ("fashion-mnist", "f_E", (2, 1, 1)),
    ("fashion-mnist", "f_D", (3, 1, 1)),
    ("digits-classifier", "h_hat", (2, 1, 1)),
]


def run_elsewhere(folder):
    env = {**os.environ, "PYTHONPATH": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, PROGRAMS / "stablehlo_elsewhere.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)
    assert done.returncode == 0, done.stderr


def expected(model, piece, arguments):
    """What `aejax.load(...)` gives for the same arrays, by its own methods."""
    named = dict(zip((i.name for i in piece.inputs), arguments, strict=True))
    first = named.pop("x", None)
    if piece.name == "f_D":
        h = named.pop("h")
        return model.decode(h, named or None)
    if piece.name == "sampler":
        return piece.function(*arguments)
    if piece.name == "f_E":
        return model.encode(first, named or None)
    out = model.apply(first, named or None)
    return getattr(out, piece.name) if piece.name in ("h", "h_hat") else out.y


@pytest.mark.slow
def test_every_shipped_function_runs_without_aejax_and_flax(tmp_path):
    wanted = {}
    for n, (name, which, (b, h, w)) in enumerate(SHIPPED):
        model = aejax.load(name)
        model = dataclasses.replace(model, config=plain_forms(model.config))
        function, piece = stablehlo.exported(part_of(model, which))
        assert set(function.platforms) == {"cpu", "tpu", "cuda"}
        arguments = [i.example({"b": b, "h": h, "w": w}, n) for i in piece.inputs]
        file = tmp_path / f"{n:02}-{name}-{which}.stablehlo"
        file.write_bytes(function.serialize())
        np.savez(file.with_suffix(".npz"), *arguments)
        wanted[file] = np.asarray(expected(model, piece, arguments))
    run_elsewhere(tmp_path)
    for file, ours in wanted.items():
        theirs = np.load(file.with_suffix(".out.npy"))
        assert theirs.shape == ours.shape, file.name
        scale = max(1.0, np.abs(ours).max())
        assert np.abs(theirs - ours).max() <= 1e-5 * scale, file.name


def plain_forms(config):
    """The config with the forms that every platform has: those of a CPU round differently."""
    config = config.copy_and_resolve_references()
    with config.ignore_type(), config.unlocked():
        config.ops = {"all": "plain"}
    return config


@pytest.mark.parametrize(
    "changes",
    [
        {"model__f_E": part("conv", widths=(4, 8)), "model__f_D": part("conv", widths=(4, 8))},
        {"model__init": "pca"},
    ],
    ids=["conv", "pca"],
)
def test_a_run_of_one_size_is_exported_with_a_free_batch(tmp_path, changes):
    config = tiny(train__length="2 steps", **changes)
    aejax.train(config, tmp_path / "run", quiet=True)
    out = tmp_path / "run.stablehlo"
    assert main(["export", str(tmp_path / "run"), "-o", str(out)]) == 0
    about = json.loads((tmp_path / "run.stablehlo.json").read_text())
    [x] = about["inputs"]
    assert x["shape"][0] == "b" and all(isinstance(n, int) for n in x["shape"][1:])
    assert x["range"] == [0.0, 1.0] and about["largest_difference"] <= 1e-5


def test_free_sizes_are_multiples_of_the_stride_and_the_sidecar_says_so(tmp_path):
    out = tmp_path / "gray.stablehlo"
    gray = aejax.load("gray")
    stablehlo.write(gray, part_of(gray), out)
    about = json.loads((tmp_path / "gray.stablehlo.json").read_text())
    assert about["multiple"] == 8 and about["inputs"][0]["shape"] == ["b", "8*h", "8*w", 1]
    assert [i["name"] for i in about["inputs"]] == ["x", "sigma"]
    assert about["output"]["shape"] == ["b", "8*h", "8*w", 1]
    with pytest.raises(UserError, match="exists? already"):
        stablehlo.write(gray, part_of(gray), out)


def test_conditions_that_nothing_depends_on_are_left_out():
    """The prior of the digits is told the class, their autoencoder is not."""
    part = part_of(aejax.load("digits"), "f_D")
    assert [i.name for i in part.inputs] == ["h", "label"]
    function, part = stablehlo.exported(part)
    assert [i.name for i in part.inputs] == ["h"] and len(function.in_avals) == 1


def test_a_fixed_size_is_padded_inside_if_asked(tmp_path):
    model = aejax.load("gray")
    with pytest.raises(UserError, match="must be multiples of 8"):
        part_of(model, size=(17, 30))
    function, piece = stablehlo.exported(part_of(model, size=(17, 30), pad_inside=True))
    assert piece.inputs[0].shape == ("b", 17, 30, 1)
    assert stablehlo.difference(function, piece, {"b": 1}) <= 1e-5


def test_operations_take_free_sizes_without_asking_for_a_form():
    """The forms of a CPU compare sizes, which free ones do not allow: plain ones are taken."""
    import jax
    import jax.numpy as jnp
    from jax import export

    def f(x, w, d):
        y = ops.conv(x, w)
        return ops.add_bias(ops.dense(ops.depthwise(y, d), w[0, 0]), w[0, 0, 0])

    shapes = export.symbolic_shape("b, 2*h, w, 8")
    k = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((3, 3, 8, 8), (3, 3, 8))]
    e = export.export(jax.jit(f))(jax.ShapeDtypeStruct(shapes, jnp.float32), *k)
    assert [str(n) for n in e.out_avals[0].shape] == ["b", "2*h", "w", "8"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gray"], "give exactly one of -o FILE, --folder DIR and --web DIR"),
        (["gray", "-o", "a", "--size", "tall"], 'size "tall" is not height x width'),
        (["gray", "-o", "a", "--part", "f_F"], 'no part "f_F"'),
        (["gray", "-o", "a", "--part", "f_E"], "has no f_E"),
        (["gray", "-o", "a", "--part", "sampler"], "is no generator"),
        (["gray", "-o", "a", "--part", "autoencoder"], "is a denoiser; leave out --part"),
        (["gray", "-o", "a", "--pad", "inside"], "needs a fixed size"),
        (["digits", "-o", "a", "--size", "32x32"], "takes only images of 28x28"),
        (["no-such-model", "-o", "a"], 'no run and no weights "no-such-model"'),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, line)
    assert not list(tmp_path.iterdir())
