"""Parts by "my_package.parts:Name" from a package that lies in the current folder."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

import aejax
from aejax import config as configs
from aejax.cli import main
from aejax.config import base
from aejax.errors import UserError
from aejax.registry import lookup
from aejax.training.optim import build_optimiser, build_schedule
from aejax.units import Clock
from tests.helpers import PROGRAMS
from tests.training.interrupted import train_until

P = "my_package.parts:"
ROOT = pathlib.Path(__file__).resolve().parents[2]


def said(capsys, *words):
    """Exit status and stderr of a command."""
    status = main(list(words))
    return status, capsys.readouterr().err.strip()


def test_every_part_by_name_in_every_verb(project, capsys):
    """check, train, eval, load and study; the package is found although nobody put it there."""
    assert main(["check", "--config", "experiment.py"]) == 0
    assert "my_package.parts:Pictures train: 48 images" in capsys.readouterr().out
    assert main(["train", "--config", "experiment.py", "--workdir", "run", "--quiet"]) == 0
    result = json.loads(pathlib.Path("run/result.json").read_text())
    assert {f"test/{P}worst", "test/size"} <= set(result["metrics"])
    assert result["config"]["objective"]["loss"] == {"mse": 1.0, P + "cubic": 0.5}
    assert result["best_step"] in (3, 6)
    assert main(["eval", "--workdir", "run"]) == 0
    again = json.loads(pathlib.Path("run/eval.json").read_text())["metrics"]
    assert again[f"test/{P}worst"] == pytest.approx(result["metrics"][f"test/{P}worst"])
    model = aejax.load("run")
    assert model.encode(np.zeros((3, 8, 8, 1), np.uint8)).shape == (3, 4)
    assert type(model.model.f_E).__module__ == "my_package.parts"
    assert main(["study", "experiment.py", "--directory", "study", "--quiet"]) == 0
    runs = [json.loads(f.read_text()) for f in pathlib.Path("study").glob("*/result.json")]
    assert len(runs) == 2 and all(r["by"] == "my own train" for r in runs)
    assert pathlib.Path("study/finished").read_text() == "2"
    assert runs[0]["config"]["objective"]["loss"] == {P + "cubic": 1.0}


@pytest.mark.slow
def test_the_installed_command_and_its_workers_find_the_package(project):
    """`aejax` as installed has not the current folder on its path, as `python -m` has."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, PROGRAMS / "installed_command.py", "study", "experiment.py",
         "--directory", "study", "--workers", "2"],
        env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(pathlib.Path("study").glob("*/result.json"))) == 2


def test_the_folder_of_a_run_brings_no_code(project, monkeypatch, capsys):
    """Not even to a user who stands in it."""
    assert main(["train", "--config", "experiment.py", "--workdir", "run", "--quiet"]) == 0
    shutil.move("my_package", "run/my_package")
    sys.path.remove(str(project))  # of the fixture's own list
    for name in [n for n in sys.modules if n.startswith("my_package")]:
        del sys.modules[name]
    monkeypatch.chdir("run")
    status, error = said(capsys, "eval", "--workdir", ".")
    assert status == 2 and 'no module "my_package"' in error


def test_a_run_with_dropout_resumes_exactly(project):
    """The rngs of own names follow from the step's key alone."""
    train = ["train", "--config", "experiment.py", "--quiet", "--config.train.length=6 steps"]
    assert main([*train, "--workdir", "whole"]) == 0
    config = configs.load("experiment.py", ["checkpoint.every=1 steps"])
    train_until(config, "halves", 3)
    aejax.train(config, "halves", quiet=True)
    whole, halves = aejax.load("whole"), aejax.load("halves")
    assert whole.step == halves.step == 6
    jax.tree.map(np.testing.assert_array_equal, whole.variables, halves.variables)


def test_dropout_is_drawn_anew_and_leaves_the_bottlenecks_stream_as_it_was(project):
    import flax.linen as nn

    from aejax.objective import run_model
    from aejax.types import Output

    class Draws(nn.Module):
        @nn.compact
        def __call__(self, x, cond, train):
            names = ("bottleneck", "dropout", "anything")
            return Output(*(jax.random.key_data(self.make_rng(n)) for n in names))

    key = jax.random.key(3)
    out, _ = run_model(Draws(), {}, np.zeros((2, 8, 8, 1)), None, key, True)
    alone = Draws().apply(
        {}, None, None, True, rngs={"bottleneck": key, "params": jax.random.key(9)}
    )
    assert (out.h == alone.h).all()  # golden results draw from this one
    assert (out.h != out.h_hat).any() and (out.h_hat != out.y).any()


@pytest.mark.parametrize(
    "override, words",
    [
        ("objective.loss.{P}one_argument=1", 'loss "{P}one_argument" takes (x); a loss is (x, y)'),
        ("objective.loss.{P}mean_of_all=1", "returns shape [] for images [16, 8, 8, 1], not [16]"),
        ("objective.loss.{P}cubik=1", 'my_package.parts has no "cubik"; did you mean "cubic"?'),
        ("objective.loss.no_package.parts:x=1", 'no module "no_package" in {here} or among'),
        ("model.f_E=ConvEncoder", 'did you mean "conv" (aejax.nets.f_E:ConvEncoder)?'),
        ("model.f_E=convv", 'did you mean "conv" (aejax.nets.f_E:ConvEncoder)?'),
        ("model.f_E={P}cubic", "is no class of flax.linen.Module; an f_E is (x, cond, train)"),
        ("model.f_D={P}Encoder", "f_D Encoder returns shape [2, 4]"),
        ("model.bottleneck={P}NoTerms", "bottleneck NoTerms returns shape [2, 4]"),
        ("model.name={P}Encoder", "model Encoder returns shape [16, 4]"),
        ("model.name={P}NoTerms", "the model has no parameters"),
        ("optim.name=adagrad", '"optax:adagrad"'),
        ("optim.name=adam", 'optimiser "adam" takes no kwargs (eps)'),
        ("optim.name=optax:cosine_decay_schedule", "has no argument"),
        ("optim.schedule=optax:warmup_cosine_decay_schedule", "'init_value'"),
        ("optim.schedule=sgdr_schedule", '"optax:sgdr_schedule"'),
        ('optim.kwargs={"epss": 1}', 'no argument "epss"; did you mean "eps"?'),
        ("data.source={P}FloatPictures", "example 0 is an image of float64 [8, 8, 1]"),
        ("data.source={P}cubic", "takes (x, y); a data source is (split)"),
        ("data.source=bundeled:digits", 'did you mean "bundled"'),
        ('eval.metrics=["mse", "{P}one_argument"]', 'metric "{P}one_argument" takes (x)'),
        ('eval.metrics=["mse", "{P}mean_of_all"]', "returns shape [] for images"),
        ('corrupt=[{"name": "{P}one_argument"}]', "takes (x); a corruption is (key, x)"),
        ('corrupt=[{"name": "{P}smaller"}]', "for images [2, 8, 8, 1], not [2, 8, 8, 1]"),
        ('corrupt=[{"name": "{P}needs"}]', "missing a required argument: 'level'"),
        ("objective.name={P}cubic", "takes (x, y); an objective is (model, variables, batch"),
        ("objective.name={P}Scalar", "objective Scalar returns"),
    ],
)  # fmt: skip
def test_a_misfit_is_one_line_before_training(project, capsys, override, words):
    override, words = (
        t.replace("{P}", P).replace("{here}", str(project)) for t in (override, words)
    )
    more = ["--config.objective.kwargs={}"] if "objective.name" in override else []
    for verb in (["check"], ["train", "--workdir", "run"]):
        status, error = said(
            capsys, *verb, "--config", "experiment.py", f"--config.{override}", *more
        )
        assert status == 2 and words in error and "\n" not in error, error
    assert not pathlib.Path("run/checkpoints").exists() or not any(
        pathlib.Path("run/checkpoints").iterdir()
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("import no_such_thing", 'needs the module "no_such_thing", which is not installed'),
        ("x = 1\ny = 1 / 0", "broken.py line 2: ZeroDivisionError"),
        ("def f(:", "broken.py line 1: SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported_says_where(project, text, words):
    (project / "my_package" / "broken.py").write_text(text + "\n")
    sys.path.append(str(project))
    with pytest.raises(UserError, match=words):
        lookup("my_package.broken:f", {}, "loss")


def test_an_error_inside_a_part_names_its_line(project, capsys):
    status, error = said(
        capsys, "check", "--config", "experiment.py", f"--config.objective.loss.{P}fails=1"
    )
    line = 1 + (project / "my_package/parts.py").read_text().split("return x.no_such")[0].count(
        "\n"
    )
    assert status == 1 and f"my_package/parts.py line {line}: AttributeError" in error
    assert "bug of aejax" not in error


def test_an_own_prior_trains_and_draws(project):
    """In place of the package's priors, over the latents of an autoencoder."""
    sys.path.append(str(project))
    from aejax.generation.latent import LatentModel

    model = base().model
    spec = {"name": P + "Laplace"}
    prior = LatentModel(shape=(8, 8, 1), autoencoder=configs.plain(model), prior=spec)
    variables = prior.init(jax.random.key(0), np.zeros((2, 8, 8, 1)), None, train=False)
    out = prior.apply(variables, np.ones((2, 8, 8, 1)), None, train=False)
    assert out.terms["prior"].shape == (2,)
    with pytest.raises(UserError, match="prior .* has no `draw`; a prior is"):
        lookup(P + "Half", {}, "prior")


def test_the_guide_lists_every_contract_and_every_dictionary():
    from aejax.contracts import CONTRACTS

    table = (ROOT / "docs/guides/extend.md").read_text().split("## The contracts")[0]
    for contract, _ in CONTRACTS.values():
        assert f"`{contract.__name__}`" in table and contract.__doc__
    for name, file in re.findall(r"`([A-Z_]+)` in `([\w/.]+)`", table):
        assert re.search(rf"^{name}\b", (ROOT / "aejax" / file).read_text(), re.M), file
    groups = r"`((?!objective.py)(?:model|objective|optim|data|eval)\.[\w.]+)`"
    for key in re.findall(groups, table):
        node = base()
        for word in key.removesuffix(".prior").split("."):
            node = node[word]


# --- names with dots ------------------------------------------------------------------------------


def test_a_loss_with_dots_from_a_file_an_override_and_json():
    name = P + "cubic"
    c = base()
    c.objective.loss = {"mse": 1.0, name: 0.5}
    assert c.objective.loss.to_dict() == {"mse": 1.0, name: 0.5}
    assert configs.from_json(configs.to_json(c)).objective.loss[name] == 0.5
    changed = configs.apply_overrides(c, [f"--config.objective.loss.{name}=0.25"])
    assert changed.objective.loss[name] == 0.25 and c.objective.loss[name] == 0.5
    changed = configs.apply_overrides(base(), {"objective.loss": {name: 1.0}})
    assert changed.objective.loss.to_dict() == {name: 1.0}
    changed = configs.apply_overrides(base(), [f'objective.loss={{"{name}": 2}}'])
    assert changed.objective.loss.to_dict() == {name: 2}


def test_a_config_dict_of_losses_says_what_to_write_instead(project):
    text = "from ml_collections import ConfigDict\n"
    (project / "dots.py").write_text(text + f'def get_config(arg=""): ConfigDict({{"{P}x": 1}})\n')
    with pytest.raises(UserError, match="plain dict"):
        configs.load("dots.py")


def test_a_table_shows_the_weight_of_a_loss_with_dots():
    from aejax.report.collect import value_of

    result = {"metrics": {}, "overrides": {}, "config": {"objective": {"loss": {P + "cubic": 0.5}}}}
    assert value_of(result, f"objective.loss.{P}cubic") == 0.5


@pytest.mark.parametrize(
    "key, value",
    [
        ("model.f_E", "my_package.parts:Encoder"),
        ("objective.loss", {"mse": 1.0, "my_package.parts:cubic": 1.0}),
        ("optim.schedule", "my_package.parts:halving"),
        ("eval.metrics", ("mse", "parts:worst")),
        ("corrupt", ({"name": "my_package.parts:shift"},)),
        ("data.source", "my_package.parts:Pictures:48"),
        ("data.eval_source", "parts:Pictures"),
    ],
)
def test_a_strangers_parts_are_refused_wherever_they_are_named(project, key, value):
    from aejax.loading import refuse_own_parts

    sys.path.append(str(project / "my_package"))
    c = base()
    c.optim.schedule = "optax:sgdr_schedule"
    refuse_own_parts(c, "run")
    with pytest.raises(UserError, match="outside aejax"):
        refuse_own_parts(configs.apply_overrides(c, {key: value}), "run")


@pytest.mark.parametrize(
    "text, module",
    [
        ("my_package.parts:cubic", "my_package.parts"),
        ("parts:Pictures:/a/folder:x", "parts"),
        ("aejax.engines.cli:subprocess.run", ""),  # nothing that another module only imports
        ("my-package:x", ""),
        ("folder:/a/b", ""),
        ("adam", ""),
    ],
)
def test_what_names_a_module_is_told_by_one_rule(text, module):
    """Loading a stranger's folder refuses by it, and looking up imports by it."""
    from aejax.registry import part_module

    assert part_module(text) == module
    if ":" in text and not module:
        with pytest.raises(UserError, match="not of the form"):
            lookup(text, {}, "loss")


def test_a_config_with_dots_is_copied_and_pickled():
    import copy
    import pickle

    c = base()
    c.objective.loss = {P + "cubic": 0.5}
    for same in (copy.deepcopy(c), pickle.loads(pickle.dumps(c)), c.copy_and_resolve_references()):
        assert configs.to_json(same) == configs.to_json(c)


# --- optax by name --------------------------------------------------------------------------------


def optim(**changes):
    return configs.apply_overrides(base(), {f"optim.{k}": v for k, v in changes.items()}).optim


@pytest.mark.parametrize(
    "name, own, kwargs",
    [("adam", "optax:adam", {}), ("sgd", "optax:sgd", {}), ("lion", "optax:lion", {})],
)
def test_optax_by_name_is_the_same_optimiser(name, own, kwargs):
    """b1, b2 and weight_decay are those of the config."""
    params = {"w": np.linspace(-1, 1, 6).reshape(2, 3)}
    updates = []
    for n in (name, own):
        tx = build_optimiser(optim(name=n, kwargs=kwargs, b1=0.8, b2=0.95), lambda _: 0.1)
        updates.append(tx.update({"w": params["w"] ** 2}, tx.init(params), params)[0]["w"])
    np.testing.assert_array_equal(*updates)


@pytest.mark.parametrize(
    "name, kwargs, same",
    [
        ("exponential_decay", {"decay_rate": 0.5},
         lambda: optax.exponential_decay(0.1, 90, 0.5, end_value=0.01)),
        ("cosine_onecycle_schedule", {"pct_start": 0.4},
         lambda: optax.cosine_onecycle_schedule(90, 0.1, pct_start=0.4)),
        ("warmup_cosine_decay_schedule", {"init_value": 0.0, "warmup_steps": 9},
         lambda: optax.warmup_cosine_decay_schedule(0.0, 0.1, 9, 90, 0.01)),
        ("polynomial_schedule", {"power": 2}, lambda: optax.polynomial_schedule(0.1, 0.01, 2, 90)),
        ("constant_schedule", {}, lambda: optax.constant_schedule(0.1)),
    ],
)  # fmt: skip
def test_optax_schedules_by_name(name, kwargs, same):
    config = optim(
        schedule="optax:" + name, schedule_kwargs=kwargs, lr=0.1, final_lr=0.1, warmup="10 steps"
    )
    schedule = build_schedule(config, 100, Clock(1, 100))
    for step in (0, 5, 30, 89):
        assert float(schedule(step + 10)) == pytest.approx(float(same()(step)), rel=1e-6)
