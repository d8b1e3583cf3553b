"""The command line: help at once, every mistake one line and exit status 2."""

import json
import os
import pathlib
import re
import resource
import subprocess
import sys

import pytest

from aejax import cli
from tests.helpers import PROGRAMS

ROOT = pathlib.Path(__file__).resolve().parents[1]
QUICK = str(ROOT / "experiments" / "quickstart.py")


def aejax(capsys, *arguments):
    status = cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def run(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "aejax", *arguments],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | env,
    )  # fmt: skip


def test_help_is_instant_and_imports_nothing_heavy():
    seconds = []  # of CPU: what else runs on the machine does not count
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = run("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert process.returncode == 0
    imported = {line.split("|")[-1].strip() for line in process.stderr.splitlines() if "|" in line}
    assert not imported & {"jax", "numpy", "flax", "ml_collections", "matplotlib"}
    for name, verb in cli.VERBS.items():
        assert name in process.stdout and verb.example in process.stdout
    assert min(seconds) < 0.5


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as e:
        cli.main([verb, "--help"])
    assert e.value.code == 0
    out = capsys.readouterr().out
    assert cli.VERBS[verb].example in out and "SUPPRESS" not in out


MISTAKES = {
    "no such verb": (["trian"], 'did you mean "train"'),
    "no config": (["train", "--workdir", "x"], "--config"),
    "missing file": (["train", "--config", "experiments/quikstart.py", "--workdir", "x"],
                     "no experiment file"),
    "wrong key": (["check", "--config", QUICK, "--config.optim.lrr=1"], 'did you mean "optim.lr"'),
    "bad value": (["check", "--config", QUICK, "--config.optim.lr=fast"], "takes float"),
    "negative rate": (["check", "--config", QUICK, "--config.optim.lr=-1"], "above 0"),
    "bad length": (["check", "--config", QUICK, "--config.train.length=soon"], "not a duration"),
    "bad mode": (["check", "--config", QUICK, "--config.train.mode=ddp"], "pmap, jit or fsdp"),
    "batch does not divide": (["check", "--config", QUICK, "--config.data.batch=33",
                               "--config.train.devices=8"],
                              "does not divide"),
    "no such source": (["check", "--config", QUICK, "--config.data.source=mnist"], "mnist"),
    "no such folder": (["check", "--config", QUICK, "--config.data.source=folder:/nowhere"],
                       "/nowhere"),
    "no such set": (["check", "--config", QUICK, "--config.data.source=tfds:fashion_mnits",
                     "--data-dir", "/nowhere"], "fashion_mnits"),
    "impossible latent": (["check", "--config", QUICK, "--config.model.latent=0"], "from 1"),
    "no such part": (["check", "--config", QUICK, "--config.model.f_E=dens"],
                     'did you mean "dense"'),
    "no such loss": (["check", "--config", QUICK, "--config.objective.loss.msee=1"],
                     'did you mean "mse"'),
    "no such metric": (["train", "--config", QUICK, "--workdir", "WORKDIR",
                        "--config.eval.metrics=[\"pnsr\"]"], 'did you mean "psnr"'),
    "no such optimiser": (["check", "--config", QUICK, "--config.optim.name=adma"],
                          'did you mean "adam'),
    "crop larger than the image": (["check", "--config", QUICK, "--config.data.crop=99"], "99"),
    "a model of one size": (["check", "--config", f"{QUICK}:photos", "--config.model.f_E=dense",
                             "--config.model.f_D=dense", "--config.eval.crop=128"],
                            "made for 96x96x3 images and cannot be evaluated on the 128x128x3"),
    "a model of one size, trained": (["train", "--config", QUICK, "--workdir", "WORKDIR",
                                      "--config.data.eval_source=bundled:photos",
                                      "--config.data.channels=1"],
                                     "made for 8x8x1 images and cannot be evaluated on"),
    "no such best": (["check", "--config", QUICK, "--config.eval.best=ssimm"],
                     'did you mean "ssim"'),
    "no such best, trained": (["train", "--config", QUICK, "--workdir", "WORKDIR",
                               "--config.eval.best=-kl"], 'eval.best = "-kl": no such metric'),
    "not a run": (["eval", "--workdir", "/nowhere"], "no run"),
    "workdir is a file": (["train", "--config", f"{QUICK}:smoke", "--workdir", __file__],
                          "cannot use"),
    "not a study": (["study", "experiments/nothing.py"], "no experiment file"),
    "nothing to report": (["report", "/nowhere"], "/nowhere"),
    "a bucket": (["train", "--config", QUICK, "--workdir", "gs://runs/1"], "mount the bucket"),
    "unknown flag": (["info", "--verbos"], "--verbos"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_status_2(name, capsys, tmp_path):
    arguments, words = MISTAKES[name]
    arguments = [str(tmp_path / "run") if a == "WORKDIR" else a for a in arguments]
    status, _, err = aejax(capsys, *arguments)
    assert status == 2, err
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("aejax: ") and words in lines[0], err


def test_debug_shows_the_traceback():
    process = run("train", "--debug", "--config", "nothing.py", "--workdir", "x")
    assert process.returncode != 0 and "Traceback" in process.stderr


def test_train_eval_check_and_info(capsys, tmp_path):
    smoke, workdir = f"{QUICK}:smoke", tmp_path / "run"
    status, out, err = aejax(capsys, "check", "--config", smoke)
    assert status == 0 and "parameter" in out and "GFLOP" in out, err
    status, out, err = aejax(capsys, "train", "--config", smoke, "--workdir", workdir, "--quiet")
    assert status == 0 and "psnr" in out, err
    result = json.loads((workdir / "result.json").read_text())
    assert result["seconds"]["compile"] > 0 and re.fullmatch(r"([0-9a-f]{7,}\+?)?", result["git"])
    assert {"config.json", "provenance.json", "log.jsonl", "checkpoints", "pictures"} <= {
        p.name for p in workdir.iterdir()
    }
    *_, row, last = map(json.loads, (workdir / "log.jsonl").read_text().splitlines())
    assert row["examples_per_sec"] > 0
    # every log, TensorBoard's too, ends in the final evaluation
    assert last["eval/psnr"] == pytest.approx(result["metrics"]["test/psnr"], rel=1e-5)
    status, out, err = aejax(capsys, "eval", "--workdir", workdir, "--checkpoint", "best")
    assert status == 0, err
    again = json.loads((workdir / "eval.json").read_text())
    assert again["metrics"] == pytest.approx(result["metrics"], rel=1e-4)
    assert len(again["per_example"]["psnr"]) == result["examples"]
    status, out, _ = aejax(capsys, "info")
    assert status == 0 and "jax" in out


def test_a_quiet_study_prints_errors_alone(capsys, tmp_path):
    study = PROGRAMS / "study_with_section.py"
    command = ["study", study, "--directory", tmp_path / "runs", "--quiet"]
    assert aejax(capsys, *command) == (0, "", "")
    assert (tmp_path / "runs" / "report.html").exists()
    status, out, err = aejax(capsys, *command, "--config.optim.lr=-1")
    assert status == 2 and out == "" and len(err.splitlines()) == 1


@pytest.mark.slow
def test_check_says_that_ms_ssim_alone_drifts(capsys):
    command = ("check", "--config", f"{QUICK}:digits,smoke", "--config.model.f_E=linear")
    command += ("--config.model.f_D=linear",)
    _, out, _ = aejax(capsys, *command, '--config.objective.loss={"ms_ssim":1}')
    assert "ms_ssim alone does not fix the mean colour" in out
    _, out, _ = aejax(capsys, *command, '--config.objective.loss={"ms_ssim":1,"mae":0.2}')
    assert "mean colour" not in out
