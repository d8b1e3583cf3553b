"""Four processes of two devices (gloo) lose one, resume as two, and end as if undisturbed."""

import re

import jax
import numpy as np
import pytest

import aejax
from tests.training.test_processes import finish, start, wait_for_checkpoint

pytestmark = pytest.mark.slow
WATCHED = "processes_watched.py"


def weights(workdir) -> np.ndarray:
    """All weights of the run's last checkpoint as one vector."""
    leaves = jax.tree.leaves(aejax.load(workdir, checkpoint="last").variables["params"])
    return np.concatenate([np.ravel(v) for v in leaves])


@pytest.mark.parametrize("mode", ["pmap", "fsdp"])
def test_a_lost_host_and_half_as_many_processes_change_nothing(tmp_path, mode):
    disturbed, whole = tmp_path / "disturbed", tmp_path / "whole"
    length = "--config.train.length=400 steps"
    processes = start(4, 2, mode, disturbed, length, program=WATCHED)
    wait_for_checkpoint(disturbed, processes)
    processes[2].kill()
    for i in (0, 1, 3):
        text = processes[i].communicate(timeout=120)[0]
        assert processes[i].returncode == 75, text
        assert re.search(r"lost: process 2 \(.*\), no heartbeat for 10 s", text), text
    assert not (disturbed / "result.json").exists()
    finish(start(2, 4, mode, disturbed, length))
    finish(start(4, 2, mode, whole, length))
    expected = weights(whole)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(weights(disturbed), expected, atol=2e-4 * np.abs(expected).max())


def test_without_process_0_the_others_end_with_75_too(tmp_path):
    workdir = tmp_path / "run"
    processes = start(4, 1, "pmap", workdir, program=WATCHED)
    wait_for_checkpoint(workdir, processes)
    processes[0].kill()
    for process in processes[1:]:
        text = process.communicate(timeout=120)[0]
        assert process.returncode == 75, text
        assert "lost: process 0" in text, text
