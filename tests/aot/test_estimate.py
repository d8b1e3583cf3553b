"""The arithmetic of benchmarks/estimate.py, and what it reads out of compiled programs."""

import importlib.util
import pathlib
import sys

import pytest

FILE = pathlib.Path(__file__).parents[2] / "experiments" / "benchmarks" / "estimate.py"
spec = importlib.util.spec_from_file_location("benchmark_estimate", FILE)
estimate = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = estimate  # dataclasses look their module up
spec.loader.exec_module(estimate)

CHIP = estimate.Chip(peak=1e12, memory=1e11, links=1e10, latency=0.0, pcie=1e10)
STEP = estimate.Step(
    flops=1e9, bytes=1e6, fixed_flops=0.0, fixed_bytes=0.0, parameters=1_000_000,
    example_bytes=1000, read_seconds=0.0,
)  # fmt: skip


def at(chips, batch=64, **changes):
    import dataclasses

    step = dataclasses.replace(STEP, **changes)
    return estimate.estimate(step, CHIP, chips, batch, utilisation=0.5, cores=1)


def test_compute_is_the_slower_of_arithmetic_and_memory():
    assert at(1)["compute"] == pytest.approx(64 * 1e9 / 0.5e12)
    assert at(1, bytes=1e9)["compute"] == pytest.approx(64 * 1e9 / 1e11)


def test_what_does_not_depend_on_the_batch_does_not_shrink():
    assert at(16)["compute"] == pytest.approx(at(1)["compute"] / 16)
    fixed = at(16, fixed_flops=5e9)["compute"] - at(16)["compute"]
    assert fixed == pytest.approx(5e9 / 0.5e12)


def test_all_reduce_of_a_ring():
    assert at(1)["reduce"] == 0
    assert at(2)["reduce"] == pytest.approx(4e6 / 1e10)
    assert at(64)["reduce"] == pytest.approx(2 * 63 / 64 * 4e6 / 1e10)


def test_input_bounds_the_step_and_grows_with_hosts():
    slow = at(4, read_seconds=0.1)
    assert slow["step"] == pytest.approx(64 * 0.1, rel=1e-3)
    assert at(16, read_seconds=0.1)["input"] == pytest.approx(slow["input"] / 4, rel=1e-3)


def test_a_row_per_number_of_chips_that_divides_the_batch():
    lines = estimate.table(STEP, CHIP, 32, False, 0.5, 1).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["1", "2", "4", "8", "16", "32"]
    assert "100%" in lines[2]


def test_chips_are_those_of_one_table():
    from aejax.aot import topology

    assert set(estimate.CHIPS) == {"v4", "v5e", "v5p", "v6e", "tpu7x"}
    assert estimate.CHIPS["v5e"].peak == topology.CHIPS["v5e"].peak == 197e12
