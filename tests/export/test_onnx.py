"""`aejax export --onnx`: onnxruntime gives what the model gives. It needs the environment of
jax2onnx, which is made where a package registry can be reached; else these tests are SKIPPED."""

import json
import os
import subprocess

import numpy as np
import pytest

import aejax
from aejax.cli import main
from aejax.export import onnx
from aejax.nets import ops
from tests.helpers import PROGRAMS

# Runs a model in onnxruntime alone, with a batch that the export never saw.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "part", "size"),
    [
        ("digits", "autoencoder", ""),
        ("fashion-mnist", "f_D", ""),
        ("gray", "denoiser", "32x40"),
        ("codec", "h", "32x64"),
        ("codec", "f_D", "32x64"),
    ],
)
def test_onnxruntime_gives_what_the_model_gives(name, part, size, environment, tmp_path):
    out = tmp_path / "model.onnx"
    size = ["--size", size] if size else []
    assert main(["export", name, "--onnx", "--part", part, "-o", str(out), *size]) == 0
    about = json.loads((tmp_path / "model.onnx.json").read_text())
    assert about["largest_difference"] <= 1e-4
    rng, model = np.random.default_rng(0), aejax.load(name)
    arrays = {}
    for i in about["inputs"]:
        shape = [5 if n == "b" else n for n in i["shape"]]
        arrays[i["name"]] = (rng.random(shape) * i.get("range", [0, 1])[1]).astype(i["dtype"])
    np.savez(tmp_path / "in.npz", **arrays)
    paths = [str(tmp_path / p) for p in ("model.onnx", "in.npz", "out.npy")]
    program = PROGRAMS / "onnx_elsewhere.py"
    env = {**os.environ, "PYTHONPATH": ""}
    subprocess.run([environment, program, *paths], check=True, env=env)
    first, *_ = arrays.values()
    cond = {k: v for k, v in arrays.items() if k not in ("x", "h")} or None
    with ops.forms(all="plain"):  # others may multiply in bfloat16
        ours = model.decode(first, cond) if part == "f_D" else model.apply(first, cond)
    ours = np.asarray(ours if part == "f_D" else {"h": ours.h}.get(part, ours.y))
    theirs = np.load(paths[2])
    assert np.abs(theirs - ours).max() <= 1e-4 * max(1.0, np.abs(ours).max())


def test_no_registry_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AEJAX_ONNX_ENV", str(tmp_path / "env"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert main(["export", "digits", "--onnx", "-o", str(tmp_path / "a.onnx")]) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert "cannot create the environment of jax2onnx in" in line and "--onnx needs" in line
    assert not (tmp_path / "a.onnx").exists() and not onnx.is_made()


def test_info_names_the_folder(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("AEJAX_ONNX_ENV", str(tmp_path / "env"))
    assert main(["info"]) == 0
    assert f"{tmp_path / 'env'} (not made yet" in capsys.readouterr().out


def test_another_environment_may_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AEJAX_ONNX_ENV", str(tmp_path))
    assert onnx.folder() == tmp_path and not onnx.is_made()
    (tmp_path / onnx.MARK).write_text(json.dumps(onnx.PACKAGES))
    assert onnx.is_made() and onnx.environment().parent.parent == tmp_path
