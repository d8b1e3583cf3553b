"""The examples in docstrings run and print what stands there; most of the public names have one.

An example may use `np`, `jax`, `flax`, `aejax`, the digits `images` [8, 8, 8, 1], a `photo`
[64, 96, 3] that is in "photo.png" too, a `config`, and the run in "runs/digits".
"""

import ast
import doctest
import importlib
import pathlib
import shutil

import flax.linen
import jax
import numpy as np
import pytest

import aejax
from tests.helpers import others_slow, tiny

PACKAGE = pathlib.Path(aejax.__file__).parent
MODULES = sorted(
    ".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for p in PACKAGE.rglob("*.py")
    if ">>> " in p.read_text() and "new_templates" not in p.parts
)
LONG = ("aejax.codec.api", "aejax.codec.pillow", "aejax.denoising.api",
        "aejax.generation.generator")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the examples run: a picture and a run."""
    folder = tmp_path_factory.mktemp("examples")
    aejax.train(
        tiny(train__length="4 steps", eval__best="-mse"), folder / "runs/digits", quiet=True
    )
    return folder


@pytest.mark.parametrize("module", others_slow(MODULES, *(m for m in MODULES if m not in LONG)))
def test_examples_print_what_stands_there(module, folder, tmp_path, monkeypatch):
    from skimage import data, io
    from sklearn.datasets import load_digits

    shutil.copytree(folder / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    photo = np.ascontiguousarray(data.astronaut()[:64, 200:296])
    io.imsave("photo.png", photo)
    given = {"np": np, "jax": jax, "flax": flax, "aejax": aejax, "photo": photo, "config": tiny()}
    given["images"] = (load_digits().images[:8, ..., None] * 15).astype(np.uint8)
    loaded = importlib.import_module(module)
    examples = [e for e in doctest.DocTestFinder().find(loaded, module) if e.examples]
    assert examples, "an example that nobody finds"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    printed = []
    for example in examples:
        example.globs |= given
        runner.run(example, out=printed.append)
    assert not runner.failures, "".join(printed)


# What a reader meets first: what `aejax` exports, and the parts that a program is made of.
PUBLIC = {
    "loading": ["load"],
    "trained": ["Trained"],
    "result": ["Metric"],
    "training/run": ["train"],
    "codec/api": ["encode", "decode"],
    "codec/pillow": [""],
    "denoising/api": ["denoise"],
    "generation/generator": ["Generator.sample"],
    "data/source": ["Source", "open_source"],
    "data/images": ["read_image", "write_image", "header"],
    "data/splits": ["open_splits"],
    "data/pipeline": ["make_pipeline"],
    "data/folds": ["make"],
    "study/definition": ["Search", "Study", "grid", "named", "seeds", "product", "list_runs"],
    "config": ["base", "part", "flags", "apply_overrides", "parse_overrides"],
    "corrupt/__init__": ["chain"],
    "losses": ["mixture"],
    "metrics/image": ["psnr"],
    "contracts": ["Encoder", "Loss", "Corruption", "Source", "Schedule"],
    "units": ["Clock", "duration_of"],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_have_an_example(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    for name in PUBLIC[module]:
        node = tree
        for part in filter(None, name.split(".")):
            (node,) = [n for n in node.body if getattr(n, "name", "") == part]
        assert ">>> " in (ast.get_docstring(node) or ""), name
