"""Reads state dicts written by torch.save, without torch.

The unpickler accepts tensors and plain containers only, so reading a file never runs code from it.
"""

import collections
import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a file in torch.save's format before zip files
STORAGES = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "Long": "<i8", "Int": "<i4"}


class _Unpickler(pickle.Unpickler):
    """Reads the pickle of a state dict.

    Args:
      storage: (dtype, key, device, count) -> the elements of a tensor's storage; None refuses
        tensors.

    Raises:
      pickle.UnpicklingError: the pickle has a name that is not part of a state dict.
    """

    def __init__(self, file: io.BytesIO, storage: Callable[..., np.ndarray] | None):
        super().__init__(file)
        self._storage = storage

    def persistent_load(self, pid: tuple) -> np.ndarray:
        if self._storage is None:
            raise pickle.UnpicklingError("an unexpected tensor")
        return self._storage(*pid[1:5])  # type, key, device, count

    def find_class(self, module: str, name: str) -> object:
        if module == "torch" and name.removesuffix("Storage") in STORAGES:
            return np.dtype(STORAGES[name.removesuffix("Storage")])
        known = {"OrderedDict": collections.OrderedDict, "_rebuild_tensor_v2": rebuilt_tensor}
        if module in ("collections", "torch._utils") and name in known:
            return known[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a state dict")


def rebuilt_tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: object):
    """The array of a tensor: a view of its storage with shape `size` and `stride` (in elements).

    Raises:
      pickle.UnpicklingError: the tensor reaches beyond its storage.
    """
    end = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1
    if min(offset, *stride, 0) < 0 or end > len(storage):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    step = [s * storage.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, step)


def read_pth(data: bytes) -> dict[str, np.ndarray]:
    """{name: array} of a state dict, from the bytes of a file of `torch.save`.

    There are two formats: a zip file, or, before 2020, four pickles, the keys of the storages, then
    each storage after its length.

    Raises:
      pickle.UnpicklingError: it is not such a file, or it holds something else than tensors.
    """
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            top = next(n for n in archive.namelist() if n.endswith("data.pkl"))

            def member(dtype, key, _, n):
                raw = archive.read(f"{top.removesuffix('data.pkl')}data/{key}")
                return np.frombuffer(raw, dtype, n)

            return dict(_Unpickler(io.BytesIO(archive.read(top)), member).load())
    file, storages = io.BytesIO(data), {}

    def empty_storage(dtype, key, _, n):  # filled below
        return storages.setdefault(key, np.zeros(n, dtype))

    if _plain(file) != MAGIC:
        raise pickle.UnpicklingError("not a file of torch.save")
    _plain(file), _plain(file)  # version and byte order, which is little-endian
    state = _Unpickler(file, empty_storage).load()
    for key in _plain(file):
        n = int(np.frombuffer(file.read(8), "<i8")[0])
        storages[key][:] = np.frombuffer(file.read(n * storages[key].itemsize), storages[key].dtype)
    return dict(state)


def _plain(file: io.BytesIO) -> Any:
    """The next pickle of the file, which holds plain values only."""
    return _Unpickler(file, None).load()
