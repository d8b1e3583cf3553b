"""Searches find what is good, go on where they were stopped, and end what is bad."""

import contextlib
import json
import math
import pathlib
import sys
import threading

import pytest

from aejax.config import base
from aejax.errors import SavedAndStopped, UserError
from aejax.study import Study, load, load_results, run_id, run_study, search
from aejax.study.search import TPE, Halving, Pruner, choice, integer, log_uniform, random, uniform
from tests.helpers import PROGRAMS

SPACE = {"optim.lr": log_uniform(1e-4, 1.0), "model.latent": integer(2, 40)}
LONG = {"1 epochs": 0.0, "3 epochs": 0.5, "9 epochs": 1.0}


def quality(config):
    """Best (0) at lr 0.01 and latent 20; longer is better."""
    far = abs(math.log10(config.optim.lr) + 2) + abs(config.model.latent - 20) / 10
    return LONG.get(config.train.length, 0.0) - far


def train(config, workdir):
    return {"metrics": {"test/psnr": quality(config), "test/mse": -quality(config)}}


def run(directory, proposals, trainer=train, runs=()):
    s = Study("search", base, runs, search=proposals, baselines=())
    return run_study(s, directory, train=trainer, quiet=True, write_report=False)


def test_draws_are_in_the_space_and_a_longer_search_only_adds():
    space = SPACE | {"optim.name": choice("adam", "sgd"), "optim.clip": uniform(0.0, 2.0)}
    draws = random(space, 300)
    assert random(space, 10) == draws[:10] and random(space, 10, seed=1) != draws[:10]
    assert {d["optim.name"] for d in draws} == {"adam", "sgd"}
    latents = [d["model.latent"] for d in draws]
    assert min(latents) == 2 and max(latents) == 40 and all(type(v) is int for v in latents)
    rates = sorted(d["optim.lr"] for d in draws)
    assert 1e-4 <= rates[0] and rates[-1] <= 1 and 3e-3 < rates[150] < 3e-2  # log-uniform
    assert all(float(f"{r:.4g}") == r for r in rates)


@pytest.mark.parametrize("make", [lambda: uniform(2, 1), lambda: log_uniform(0, 1), choice])
def test_impossible_spaces(make):
    with pytest.raises(UserError):
        make()


def test_halving_gives_more_time_to_the_better(tmp_path):
    proposals = Halving(SPACE, 9, tuple(LONG))
    results = run(tmp_path, proposals)
    by_rung = {i: [r for r in results if r["labels"]["rung"] == i] for i in range(3)}
    assert [len(v) for v in by_rung.values()] == [9, 3, 1]
    for before, after in ((0, 1), (1, 2)):
        order = sorted(by_rung[before], key=lambda r: -r["metrics"]["test/psnr"])
        expected = {r["overrides"]["optim.lr"] for r in order[: len(by_rung[after])]}
        assert {r["overrides"]["optim.lr"] for r in by_rung[after]} == expected
    calls = []
    run(tmp_path, proposals, lambda config, workdir: calls.append(1))
    assert not calls


def test_halving_passes_over_what_failed(tmp_path):
    def some_fail(config, workdir):
        if config.model.latent > 20:
            raise UserError("diverged")
        return train(config, workdir)

    results = run(tmp_path, Halving(SPACE, 9, tuple(LONG)), some_fail)
    assert max(r["labels"]["rung"] for r in results) == 2


def test_halving_by_a_metric_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match='"test/nothing".*test/psnr'):
        run(tmp_path, Halving(SPACE, 3, tuple(LONG), metric="test/nothing"))


# --- TPE ------------------------------------------------------------------------------------------


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna", reason="optuna is not installed: TPE tests SKIPPED")


def test_tpe_beats_random_at_equal_budget(tmp_path, optuna):
    n, scores = 30, {}
    for seed in (0, 1):
        for name, runs, proposals in (
            ("random", random(SPACE, n, seed), None),
            (
                "tpe",
                (),
                TPE(SPACE, n, "test/mse", False, seed=seed, startup=8),
            ),
        ):
            results = run(tmp_path / f"{name}{seed}", proposals, runs=runs)
            top = search.best(results, "test/mse", larger_is_better=False)
            scores.setdefault(name, []).append(top["metrics"]["test/psnr"])
    assert sum(scores["tpe"]) > sum(scores["random"])


def test_tpe_goes_on_where_it_was_stopped(tmp_path, optuna):
    calls = []

    def stops(config, workdir):
        calls.append((config.optim.lr, config.model.latent))
        if len(calls) in (3, 7, 8):
            raise SavedAndStopped("SIGTERM")
        return train(config, workdir)

    for _ in range(3):
        with pytest.raises(SavedAndStopped):
            run(tmp_path / "a", TPE(SPACE, 10, startup=4), stops)
    results = run(tmp_path / "a", TPE(SPACE, 10, startup=4), stops)
    straight = run(tmp_path / "b", TPE(SPACE, 10, startup=4))
    assert [r["overrides"] for r in results] == [r["overrides"] for r in straight]
    assert len(results) == 10 and len(calls) == 13
    extended = run(tmp_path / "a", TPE(SPACE, 12, startup=4))
    assert [r["id"] for r in extended[:10]] == [r["id"] for r in results] and len(extended) == 12


def test_tpe_shared_by_several(tmp_path, optuna):
    calls, errors, together = [], [], threading.Barrier(3)

    def slow(config, workdir):
        calls.append(workdir)
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(10)  # three trials at a time
        return train(config, workdir)

    def work():
        try:
            run(tmp_path, TPE(SPACE, 12, startup=4), slow)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not errors and len(calls) == len(set(calls)) == len(load_results(tmp_path)) == 12


def test_tpe_begins_with_what_it_is_given_and_survives_failures(tmp_path, optuna):
    def some_fail(config, workdir):
        if config.model.latent > 30:
            raise UserError("diverged")
        if config.model.latent < 6:
            return {"metrics": {"test/psnr": float("nan")}}
        return train(config, workdir)

    space = SPACE | {"optim.name": choice("adam", "sgd")}
    first = [{"optim.lr": 0.5, "model.latent": 30, "optim.name": "sgd"}]
    proposals = TPE(space, 12, first=first, fixed={"seed": 3})
    results = run(tmp_path, proposals, some_fail)
    assert results[0]["overrides"] == first[0] | {"seed": 3}
    assert len(list(tmp_path.glob("*/*.json"))) >= 12
    with pytest.raises(UserError, match="optim.name = 'gd'"):
        TPE(space, 3, first=[{"optim.name": "gd"}])


def test_tpe_without_optuna_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match="pip install"):
        run(tmp_path, TPE(SPACE, 3))


# --- pruning --------------------------------------------------------------------------------------


def log(workdir, values):
    workdir.mkdir(exist_ok=True)
    rows = [{"step": 10 * i, "eval/psnr": v} for i, v in enumerate(values, 1)]
    (workdir / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"step"')


def test_the_median_rule(tmp_path):
    others = [tmp_path / str(i) for i in range(5)]
    for i, other in enumerate(others[:4]):
        log(other, [i, i + 10.0, 20.0])
    pruner, mine = Pruner(startup=4), tmp_path / "mine"
    assert not pruner.should_stop(mine, others)  # no log yet
    log(mine, [0.0])
    assert not pruner.should_stop(mine, others)  # the first evaluation is not judged
    log(mine, [0.0, 11.4])
    assert pruner.should_stop(mine, others)  # the median at step 20 is 11.5
    log(mine, [0.0, 11.6])
    assert not pruner.should_stop(mine, others)
    log(mine, [12.0, 3.0])
    assert not pruner.should_stop(mine, others)  # the best so far counts
    log(others[0], [5.0])
    log(mine, [0.0, 0.0])
    assert not pruner.should_stop(mine, others)  # three others came as far
    log(others[0], [0.0, 10.0])
    assert not Pruner(larger_is_better=False, startup=4).should_stop(mine, others)


def test_a_bad_run_is_ended_and_the_search_goes_on(tmp_path, optuna):
    steps, looks = [], threading.Semaphore(0)

    class Counted(Pruner):
        def should_stop(self, workdir, others):
            try:
                return super().should_stop(workdir, others)
            finally:
                looks.release()

    def slow(config, workdir):
        """Logs evaluations, each of which the pruner sees; SIGTERM ends it as the real one."""
        q = quality(config)
        with open(pathlib.Path(workdir) / "log.jsonl", "a", buffering=1) as f:
            for i in range(1, 5):
                f.write(json.dumps({"step": i, "eval/psnr": q * (1 + 1 / i)}) + "\n")
                while looks.acquire(blocking=False):
                    pass
                for _ in range(2):  # the first of these looks may have begun before the line
                    looks.acquire(timeout=10)
        steps.append(workdir)
        return train(config, workdir)

    proposals = TPE(SPACE, 14, startup=14, pruner=Counted(startup=3), poll=0.01)
    results = run(tmp_path, proposals, slow)
    pruned = {p.parent.name for p in tmp_path.glob("*/pruned.json")}
    assert pruned and len(results) + len(pruned) == 14 and len(steps) == len(results)
    done = [r["metrics"]["test/psnr"] for r in results]
    assert max(done) > sum(done) / len(done)
    before = sorted(tmp_path.glob("*/result.json"))
    run(tmp_path, proposals, slow)
    assert sorted(tmp_path.glob("*/result.json")) == before  # pruned runs are not begun again
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal = JournalStorage(JournalFileBackend(str(tmp_path / "search" / "optuna.log")))
    trials = optuna.load_study(study_name="search", storage=journal).trials
    assert all(t.intermediate_values for t in trials if t.state.name == "PRUNED")
    states = {t.state.name for t in trials}
    assert states == {"COMPLETE", "PRUNED"}


def test_ids_of_draws_are_stable():
    assert run_id(random(SPACE, 1)[0]) == run_id(random(SPACE, 5)[0])


def test_progress_counts_what_the_search_will_have(tmp_path, capfd):
    """ "[2/3]", not "[2/2]", although the third trial is not drawn yet."""
    pytest.importorskip("optuna")
    s = Study("s", base, [], search=TPE(SPACE, 3), baselines=())
    run_study(s, tmp_path, train=train, write_report=False)
    err = capfd.readouterr().err
    assert [f"[{i}/3]" in err for i in (1, 2, 3)] == [True] * 3
    assert "about" in err.split("[2/3]")[0]  # what is left is estimated from the first run on
    assert Halving(SPACE, 27, lengths=("1", "3", "9")).total == 27 + 9 + 3


def test_overrides_of_the_command_line_reach_the_runs_of_a_search(tmp_path, optuna):
    """Under the ids that the search knows them by: it ends after its four trials."""
    s = load(str(PROGRAMS / "search_study.py"), ["--config.data.batch=7"])
    assert s.search.total == 4 and s.search.can_stop_runs
    results = run_study(s, tmp_path / "runs", quiet=True, write_report=False)
    assert [r["metrics"]["test/psnr"] for r in results] == [7.0] * 4
