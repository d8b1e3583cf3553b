"""The process environment: what is set, when it is not, and that it reaches the process."""

import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from aejax.machine import allocator, cache, cpu, provenance, speed
from tests.helpers import PROGRAMS

LINUX = pytest.mark.skipif(not allocator.has_glibc(), reason="glibc only")


@pytest.fixture
def bare(monkeypatch):
    """A CPU machine whose user has set nothing."""
    for name in ("GLIBC_TUNABLES", "AEJAX_NO_REEXEC", "AEJAX_REEXEC", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return monkeypatch


@LINUX
def test_environment_names_the_allocator_settings(bare, capsys):
    wanted = allocator.tune_cpu()
    assert wanted["GLIBC_TUNABLES"].startswith("glibc.malloc.hugetlb=1:")
    assert f"export GLIBC_TUNABLES={wanted['GLIBC_TUNABLES']}" in capsys.readouterr().out


@LINUX
def test_environment_keeps_the_users_settings(bare, capsys):
    bare.setenv("GLIBC_TUNABLES", "glibc.cpu.x86_shstk=on")
    assert allocator.environment()["GLIBC_TUNABLES"].startswith(
        "glibc.cpu.x86_shstk=on:glibc.malloc."
    )
    bare.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
    assert allocator.environment() == {}
    allocator.tune_cpu()
    assert "set already" in capsys.readouterr().out


def test_environment_is_empty_with_an_accelerator(bare):
    bare.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert allocator.environment() == {}
    bare.setenv("JAX_PLATFORMS", "")
    bare.setenv("TPU_NAME", "local")
    assert allocator.environment() == {}


def test_an_accelerator_is_expected_where_its_device_file_is(bare, tmp_path):
    bare.delenv("JAX_PLATFORMS")
    assert not cpu.expects_accelerator(str(tmp_path))
    (tmp_path / "nvidiactl").touch()
    assert cpu.expects_accelerator(str(tmp_path))


@LINUX
@pytest.mark.parametrize(
    "name, env, expected",
    [
        ("aejax", {}, "1"),
        ("aejax", {"AEJAX_NO_REEXEC": "1"}, "None"),
        ("host_of_our_main", {}, "None"),
    ],
)
def test_the_command_line_alone_starts_itself_again_once(bare, tmp_path, name, env, expected):
    """A stand-in for the command: a file called aejax, found as sys.argv[0]."""
    script = shutil.copy(PROGRAMS / "starts_again.py", tmp_path / name)
    log = tmp_path / "a log"
    out = subprocess.run(
        [sys.executable, script, str(log), "--flag=a b"],
        capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, **env, "PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout  # fmt: skip
    assert out.split() == [expected, str(expected == "1"), *f"{log} --flag=a b".split()]
    starts = log.read_text().split()
    assert len(starts) == (2 if expected == "1" else 1) and len(set(starts)) == 1  # one process


def test_compilation_cache_of_a_process_without_jax(tmp_path):
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    env |= {"AEJAX_CACHE": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    run = lambda **more: subprocess.run(  # noqa: E731
        [sys.executable, PROGRAMS / "compilation_cache.py"],
        env=env | more,
        capture_output=True,
        text=True,
        timeout=60,
    )
    folder, entries = run().stdout.split()
    assert folder.startswith(str(tmp_path)) and int(entries) > 0
    assert run(AEJAX_NO_CACHE="1").returncode != 0  # the folder is None then
    own = tmp_path / "own"
    assert run(JAX_COMPILATION_CACHE_DIR=str(own)).stdout.startswith(str(own))


def test_compilation_cache_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("AEJAX_CACHE", str(tmp_path / "file"))
    assert cache.compilation_cache() is None


def test_the_gain_of_bfloat16_is_timed_once_where_the_flags_are(tmp_path):
    file, timed = tmp_path / "cache" / "speed.json", []

    def measure():
        timed.append({"f32": 100.0, "bf16": 120.0})
        return timed[-1]

    assert speed.timed_once(file, frozenset({"avx512f"}), measure) == {"f32": 1.0, "bf16": 1.0}
    assert not timed and not file.exists()
    flags = frozenset({"avx512_bf16"})
    for _ in range(2):
        assert speed.timed_once(file, flags, measure) == {"f32": 100.0, "bf16": 120.0}
    assert json.loads(file.read_text()) == timed[0]
    speed.timed_once.cache_clear()  # another process
    assert speed.timed_once(file, flags, measure) == timed[0] and len(timed) == 1


def test_measure_inside_a_trace():
    gflops = {}

    @jax.jit
    def f(x):
        gflops.update(speed.measure(n=256, repeats=1))
        return x + 1

    assert f(jnp.float32(1)) == 2
    assert gflops["f32"] > 0 and gflops["bf16"] > 0


def test_describe_says_what_was_chosen(bare):
    said = provenance.describe()
    assert "cpu_f32" in said["forms of ops"] or "bfloat16" in said["forms of ops"]
    assert "removed" in said["compiled programs"] and "cores" in said["cpu"]


@pytest.mark.parametrize("vendor, wanted", [("0x8086", "cpu"), ("0x1ae0", "")])
def test_libtpu_without_a_tpu_is_left_alone(bare, tmp_path, vendor, wanted):
    """Google's PCI vendor is a TPU's, or a network card's: then jax is to look for itself."""
    (tmp_path / "libtpu.py").touch()
    bare.syspath_prepend(tmp_path)
    (tmp_path / "pci" / "0000:00:04.0").mkdir(parents=True)
    (tmp_path / "pci" / "0000:00:04.0" / "vendor").write_text(vendor + "\n")
    folders = str(tmp_path / "dev"), str(tmp_path / "pci")
    assert cpu.without_tpu(*folders) == {}, "the user's JAX_PLATFORMS stays"
    bare.delenv("JAX_PLATFORMS")
    assert cpu.without_tpu(*folders).get("JAX_PLATFORMS", "") == wanted
