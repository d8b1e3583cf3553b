"""The network of the FID in print against the reference's, and the file of its weights."""

import importlib.util
import io
import pickle
import sys
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.errors import UserError
from aejax.generation.features import inception, torch_file


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)


def test_shapes_are_those_of_the_published_network():
    shapes = inception.expected()
    count = sum(np.prod(s) for unit in shapes.values() for s in unit.values())
    assert count == 21_751_136 + 17_216 + 1008 * 2049  # kernels and channels of the port, fc
    assert shapes["Mixed_7c.branch3x3dbl_3b"]["kernel"] == (3, 1, 384, 384)
    outputs = jax.eval_shape(inception.InceptionV3().init_with_output, jax.random.key(0),
                           jnp.zeros((2, 28, 28, 3)))[0]  # fmt: skip
    assert [f.shape for f in outputs] == [(2, 2048), (2, 1008)]


def test_extractor_is_a_function_of_each_picture(pictures):
    init = inception.InceptionV3(narrow=32).init
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    rng = np.random.default_rng(0)  # NumPy compiles nothing
    drawn = jax.tree.map(
        lambda s: np.float32(rng.normal(size=s.shape) / max(1, np.prod(s.shape[:-1]) / 2) ** 0.5),
        shapes,
    )
    extract = inception.extractor(drawn, batch=2, narrow=32)
    features, labels = extract(pictures)
    assert features.shape == (3, (320 + 4 * 384 + 192) // 32) and features.dtype == np.float64
    assert labels.shape == (3,) and np.isfinite(features).all() and features.std() > 0
    again = extract(pictures[::-1].copy())[0]  # in another place of another batch
    np.testing.assert_allclose(again[::-1], features, rtol=1e-4, atol=1e-6)
    gray = pictures[:2, ..., :1]
    three = extract(np.repeat(gray, 3, axis=-1))
    np.testing.assert_array_equal(extract(gray)[0], three[0])
    with pytest.raises(UserError, match="uint8"):
        extract(pictures / 255.0)
    with pytest.raises(UserError, match=r"\[n, h, w, 1 or 3\]"):
        extract(pictures[..., :2])


# The file


def state_dict(file, old):
    """What torch.save writes, made without torch: a float matrix, transposed, and a scalar."""
    matrix = np.arange(6, dtype="<f4")
    storages = {"0": ("FloatStorage", matrix), "1": ("LongStorage", np.array([7], "<i8"))}

    class Tensor:
        def __init__(self, key, size, stride):
            self.key, self.size, self.stride = key, size, stride

        def __reduce__(self):
            return sys.modules["torch._utils"]._rebuild_tensor_v2, (
                Key(self.key), 0, self.size, self.stride, False, {})  # fmt: skip

    class Key(str):
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            if not isinstance(thing, Key):
                return None
            name, data = storages[thing]
            return ("storage", getattr(sys.modules["torch"], name), str(thing), "cpu", len(data))

    tensors = {"a.weight": Tensor("0", (3, 2), (1, 3)), "a.steps": Tensor("1", (), ())}
    if not old:
        buffer = io.BytesIO()
        Pickler(buffer, 2).dump(tensors)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", buffer.getvalue())
            for key, (_, data) in storages.items():
                archive.writestr(f"archive/data/{key}", data.tobytes())
        return
    for plain in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(plain, file, 2)
    Pickler(file, 2).dump(tensors)
    pickle.dump(list(storages), file, 2)
    for _, data in storages.values():
        file.write(np.array(len(data), "<i8").tobytes() + data.tobytes())


@pytest.fixture
def torch_names(monkeypatch):
    """Names that the pickles point to, as modules that hold nothing else."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2():
        raise AssertionError("only its name is wanted")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils", "_rebuild_tensor_v2")  # fmt: skip
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    torch._utils = utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


@pytest.mark.parametrize("old", [False, True])
def test_state_dicts_are_read_without_torch(torch_names, old):
    file = io.BytesIO()
    state_dict(file, old)
    state = torch_file.read_pth(file.getvalue())
    np.testing.assert_array_equal(state["a.weight"], [[0, 3], [1, 4], [2, 5]])
    assert state["a.steps"] == 7 and state["a.steps"].shape == ()


def test_a_pickle_that_calls_something_is_refused(tmp_path):
    class Call:
        def __reduce__(self):
            return print, ("called",)

    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Call()}, 2))
    with pytest.raises(UserError, match=r"print is not part of a state dict"):
        inception.load(path, any_hash=True)


def test_a_tensor_beyond_its_storage_is_refused():
    with pytest.raises(pickle.UnpicklingError, match="beyond"):
        torch_file.rebuilt_tensor(np.zeros(6, "<f4"), 1, (3, 2), (2, 1))


def test_wrong_files_are_the_users_errors(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(UserError, match=r"cannot read .*pytorch-fid$") as e:
        inception.load(tmp_path / "none.pth")
    assert "\n" not in str(e.value)
    other = tmp_path / "other.pth"
    other.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"SHA-256 [0-9a-f]{8}.*6726825d.*--any-hash"):
        inception.load(other)
    with pytest.raises(UserError, match=r"not a \.pth or \.safetensors"):
        inception.load(other, any_hash=True)
    tensors = {"fc.weight": np.zeros((2, 3), "f4"), "fc.bias": np.zeros(2, "f4")}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="another network"):
        inception.load(tmp_path / "a.safetensors", any_hash=True)
    save_file(tensors | {"a.conv.weight": np.zeros((1, 1, 1, 1), "f4")}, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"lack 'a\.bn\.weight'"):
        inception.load(tmp_path / "b.safetensors", any_hash=True)


@pytest.mark.parametrize("new", [True, False])
def test_features_are_those_of_pytorch_fid(tmp_path, monkeypatch, new, pictures):
    """The reference's own network with random weights, through a file of either form."""
    why = "is not installed: the check of Inception against the reference is SKIPPED"
    for name in ("pytorch_fid", "torchvision", "torch"):  # found, not yet imported: that is slow
        if not importlib.util.find_spec(name):
            pytest.skip(f"{name} {why}")
    import torch
    import torchvision
    from pytorch_fid import inception as reference

    monkeypatch.setattr(reference, "load_state_dict_from_url", lambda *a, **k: {})
    monkeypatch.setattr(torchvision.models.Inception3, "load_state_dict", lambda self, state: None)
    whole = reference.fid_inception_v3()  # no download: its weights are drawn here
    monkeypatch.undo()
    generator = torch.Generator().manual_seed(0)
    state = whole.state_dict()
    for name, value in state.items():
        if value.dtype != torch.float32:
            continue
        drawn = torch.randn(value.shape, generator=generator)
        if name.endswith(("conv.weight", "fc.weight")):
            value.copy_(drawn * (2.0 / value[0].numel()) ** 0.5)
        elif name.endswith(("bn.weight", "running_var")):
            value.copy_((0.2 * drawn).exp())
        else:
            value.copy_(0.2 * drawn)
    path = tmp_path / "random.pth"
    torch.save(state, path, _use_new_zipfile_serialization=new)
    with pytest.raises(UserError, match="SHA-256"):
        inception.load(path)
    variables, name = inception.load(path, any_hash=True)
    assert "not the FID" in name
    if not new:  # the same numbers, of the other form
        name, read = "Mixed_5b.branch5x5_2.conv.weight", torch_file.read_pth(path.read_bytes())
        np.testing.assert_array_equal(read[name], state[name].numpy())
        return
    monkeypatch.setattr(reference, "fid_inception_v3", lambda: whole)
    net = reference.InceptionV3().eval()
    x = torch.from_numpy(pictures[:2].transpose(0, 3, 1, 2).copy()).float() / 255.0
    with torch.no_grad():
        theirs = net(x)[0].numpy()[:, :, 0, 0].astype(np.float64)
    ours, _ = inception.extractor(variables, batch=2)(pictures[:2])
    error = np.abs(ours - theirs).max() / theirs.std()
    print(f"largest difference {error:.2g} of the spread of the features")
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.std())
