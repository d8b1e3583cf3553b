"""Tests run on 8 emulated devices, from one compilation cache, without the user's own settings, and
in float32 products on every CPU: which form of aejax.nets.ops is taken depends on no timing."""

import os
import pathlib
import shutil
import sys
import tempfile

# Programs are run once or twice here: translating them well takes twice as long as that saves.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["AEJAX_NO_REEXEC"] = "1"
if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker has the variables of who started it
    caches = os.environ.get("AEJAX_CACHE", tempfile.gettempdir())
    os.environ["AEJAX_CACHE"] = os.path.join(caches, "aejax-tests")

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
path = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))  # of processes that tests start

import jax  # noqa: E402
import pytest  # noqa: E402

from aejax import files  # noqa: E402
from aejax.machine import speed  # noqa: E402

# As if bfloat16 products had been timed to be no faster: read here and by processes of tests.
# Tests that are about the other form ask for it, by `ops.forms` or by an AEJAX_CACHE of their own.
speed.measurement_file().parent.mkdir(parents=True, exist_ok=True)
files.write_atomically(speed.measurement_file(), '{"f32": 1.0, "bf16": 1.0}')
assert speed.bf16_gain() == 1

jax.config.update("jax_compilation_cache_dir", os.path.join(os.environ["AEJAX_CACHE"], "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


WAITING = ("test_slurm.py", "test_processes.py", "test_study.py")


def pytest_collection_modifyitems(items):
    """Tests that wait for processes of their own come first, others fill the cores meanwhile; the
    short files of this folder come last, so that all cores end together."""
    items.sort(key=lambda item: (item.path.name not in WAITING, item.path.parent == ROOT / "tests"))


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """The folder of real data sets; tests that need it are skipped where it is not."""
    folder = os.environ.get("AEJAX_DATA")
    if not folder or not pathlib.Path(folder).is_dir():
        pytest.skip("AEJAX_DATA names no data folder: this test of real data is SKIPPED")
    return pathlib.Path(folder)


@pytest.fixture(scope="module")  # while it lives, an event loop runs in this thread
def browser():
    """Headless Chromium, by Playwright; tests that need it are skipped where one of them is not."""
    reason = "SKIPPED, no page was tried: pip install playwright, and a Chromium"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    names = ("chromium", "chromium-browser", "chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("SKIPPED, no page was tried: there is no Chromium on this machine")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
