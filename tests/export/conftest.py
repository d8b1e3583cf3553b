"""The environment of jax2onnx, for every test that needs it."""

import os

import pytest

from aejax.errors import UserError
from aejax.export import onnx


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Made once; in parallel workers by the first. Where it is not made yet, AEJAX_TEST_ONNX=1 (CI
    sets it) has it made: some sixty packages."""
    if not (onnx.is_made() or os.environ.get("AEJAX_TEST_ONNX", "0") not in ("", "0")):
        pytest.skip("SKIPPED, no ONNX was checked: AEJAX_TEST_ONNX=1 makes its environment")
    from filelock import FileLock

    lock = tmp_path_factory.getbasetemp().parent / "onnx.lock"
    try:
        with FileLock(lock):
            return onnx.environment()
    except UserError as e:
        pytest.skip(f"SKIPPED, no ONNX was checked: {e}")
