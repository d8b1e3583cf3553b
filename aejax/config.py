"""The config of a run: all keys with defaults, units and meaning; overrides; JSON.

An experiment file defines `get_config(arg="")`, which changes some keys of `base()`.
"""

import contextlib
import hashlib
import importlib.util
import json
import pathlib
import sys
from collections.abc import Generator, Mapping, Sequence
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.registry import did_you_mean, own_line, with_current_names
from aejax.result import Overrides


class Dotted(ConfigDict):
    """A ConfigDict whose keys may contain dots, as names of the user's losses do:
    `c.objective.loss = {"mse": 1.0, "my_package.parts:my_loss": 0.1}`."""

    def __init__(self, initial_dictionary=None, type_safe=True, convert_dict=True, **options):
        options = {"allow_dotted_keys": True} | options
        super().__init__(None, type_safe, convert_dict, **options)
        for key, value in (initial_dictionary or {}).items():
            self[key] = value

    def __setitem__(self, key: str, value: object) -> None:
        if isinstance(value, dict | ConfigDict) and not isinstance(value, Dotted):
            value = Dotted(value)
        super().__setitem__(key, value)


def base() -> ConfigDict:
    """The default config: a dense autoencoder of the bundled digits. All keys are listed here.

    >>> c = base()
    >>> c.data.source, c.model.latent = "folder:my/photos", 32
    """
    c = ConfigDict()
    c.task = "reconstruct"  # reconstruct | compress | denoise | generate: a label for reports
    c.seed = 0  # all random numbers are functions of the seed and the step

    c.data = ConfigDict()
    c.data.source = "bundled:digits"  # folder:PATH, tfds:NAME, ..., module:Class
    c.data.split = "train"  # folders named train, val and test are splits; see data/folder.py
    c.data.eval_source = ""  # "" = the same source
    c.data.eval_split = "test"
    c.data.holdout = 10  # in a set without splits every 10th image is in the test split
    c.data.folds = ""  # file of data/folds.py: test on one fold of the split, train on the others
    c.data.fold = 0  # index of the fold to test on
    c.data.size = ()  # (height, width) or (short side,) to resize to when decoding; () = as stored
    c.data.crop = 0  # side of random square training crops, pixels; 0 = whole images
    c.data.flip = False  # random left-right flips
    c.data.rotate = False  # random quarter turns
    c.data.channels = 0  # 1 = gray, 3 = RGB, 0 = as stored
    c.data.batch = 64  # examples per step, over all devices and processes
    c.data.cache = "auto"  # auto | device (resident, uint8) | memmap | stream
    c.data.on_bad = "error"  # error | skip: unreadable, too small and, in train, test images
    c.data.workers = 0  # decoding processes, for cache = "stream"

    c.corrupt = ()  # x -> x_tilde: ({"name": "gaussian", "sigma": (0, 55)}, ...); () = identity

    c.model = ConfigDict()
    c.model.name = ""  # "" = AutoEncoder(f_E, bottleneck, f_D); "package.module:Class" replaces it
    c.model.kwargs = ConfigDict()  # arguments of that class
    c.model.latent = 16  # size of h: numbers of a vector, or channels of a map
    c.model.f_E = part("dense")
    c.model.bottleneck = part("identity")
    c.model.f_D = part("dense")
    c.model.init = "random"  # random | pca: the best linear autoencoder of the training data
    c.model.dtype = "float32"  # of the computation: float32 | bfloat16; parameters are float32
    c.model.remat = False  # recompute blocks (or f_E and f_D) in the backward pass
    c.model.start = ""  # run folder, shipped name or .safetensors file with initial variables
    c.model.quantise = ConfigDict()  # integer products, see nets/quantise.py; {} = floating point
    c.model.start_only = ""  # regex of the parameters to take from model.start; "" = all

    c.objective = Dotted()
    c.objective.name = "autoencode"  # or "package.module:Class"
    c.objective.loss = {"mse": 1.0}  # weights of losses between y and x: losses.LOSSES or your own
    c.objective.terms = ConfigDict()  # weights of the terms of the bottleneck, such as kl
    c.objective.kwargs = ConfigDict()  # further arguments of the objective

    c.optim = ConfigDict()
    c.optim.name = "adam"  # gd | sgd | momentum | adam | adamw | lion | muon | "optax:adagrad"
    c.optim.kwargs = ConfigDict()  # arguments of an optimiser "module:name"
    c.optim.lr = 1e-3
    c.optim.schedule = "cosine"  # constant | cosine | linear | wsd | "optax:sgdr_schedule"
    c.optim.schedule_kwargs = ConfigDict()  # arguments of a schedule "module:name"
    c.optim.warmup = "0 steps"
    c.optim.final_lr = 0.0  # as a fraction of lr
    c.optim.b1 = 0.9  # momentum of sgd too
    c.optim.b2 = 0.999
    c.optim.weight_decay = 0.0
    c.optim.clip = 0.0  # largest global norm of the gradient; 0 = no clipping
    c.optim.accumulate = 1  # micro-batches per step
    c.optim.ema = 0.0  # decay per step of the moving average of the parameters; 0 = none
    c.optim.only = ""  # regex of the paths of the parameters to train; "" = all

    c.train = ConfigDict()
    c.train.length = "10 epochs"  # "N steps", "N epochs" or "N examples"
    c.train.mode = "pmap"  # pmap | jit | fsdp
    c.train.devices = 0  # number of devices to use; 0 = all
    c.train.fsdp = ((".*", -1),)  # (regex of parameter paths, axis to shard; -1 = largest), ...
    c.train.steps_per_dispatch = 1  # steps per call of the program; > 1 is fast for small models
    c.train.stop_loss = 0.0  # stop when the training loss falls to this value; 0 = never
    c.train.patience = 0  # stop after this number of evaluations without improvement; 0 = never
    c.train.max_skipped = 20  # consecutive steps with a non-finite gradient before the run fails
    c.train.profile = ()  # (first step, number of steps) of a profiler trace; () = none

    c.eval = ConfigDict()
    c.eval.every = ""  # interval, such as "5 epochs"; "" = at the end only
    c.eval.batch = 0  # examples per batch and process; 0 = data.batch
    c.eval.crop = 0  # side of centre crops, pixels; 0 = whole images
    c.eval.examples = 0  # number of examples to evaluate; 0 = the whole split
    c.eval.metrics = ("psnr", "ssim", "mse")
    c.eval.best = "psnr"  # metric of the best checkpoint; "-name" = smaller is better
    c.eval.pictures = 16  # number of example images to store

    c.checkpoint = ConfigDict()
    c.checkpoint.every = "300 seconds"  # interval: steps, epochs, examples or seconds
    c.checkpoint.keep = 2  # number of latest checkpoints to keep, in addition to the best one

    c.log = ConfigDict()
    c.log.every = "2 seconds"
    c.log.tensorboard = False
    c.log.wandb = ""  # name of a Weights & Biases project; "" = off

    c.ops = ConfigDict()  # forms of operations (aejax.nets.ops.forms), such as conv = "plain"
    return c


def part(name: str, **kwargs) -> ConfigDict:
    """The config of a part of a model: its name and its arguments.

    >>> part("conv", widths=(8, 16)).to_dict()
    {'name': 'conv', 'widths': (8, 16)}
    """
    return ConfigDict({"name": name, **kwargs}, convert_dict=True, type_safe=False)


# --- experiment files -----------------------------------------------------------------------------


def load_module(path: str) -> ModuleType:
    """Imports an experiment file by its path. Files of its folder can be imported by it.

    Raises:
      UserError: no such file, or an error in it.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        near = [str(p) for p in pathlib.Path("experiments").rglob("*.py")]
        hint = did_you_mean(str(file), near) if near else ""
        raise UserError(f'no experiment file "{path}"{hint}')
    name = "experiments_" + hashlib.sha1(str(file.resolve()).encode()).hexdigest()[:10]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f'"{path}" is not a .py file')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))
    try:
        with file_errors(path):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    return module


@contextlib.contextmanager
def file_errors(path: str) -> Generator[None]:
    """Turns exceptions of a user's file into one-line errors with file and line number.

    Raises:
      UserError: instead of any other exception.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        hint = ""
        if "does not accept dots" in str(e):
            hint = "; write losses as a plain dict: c.objective.loss = {...}"
        raise UserError(f"{own_line(e) or path}: {type(e).__name__}: {e}{hint}") from e


def split_arg(spec: str) -> tuple[str, str]:
    """ "FILE.py:arg" -> ("FILE.py", "arg")."""
    path, colon, arg = spec.partition(".py:")
    return (path + ".py", arg) if colon else (spec, "")


def flags(arg: str, *known: str) -> list[str]:
    """The words of the argument of an experiment file, separated by commas or spaces.

    Args:
      arg: the text after "FILE.py:".
      known: allowed words; "name=" allows "name=VALUE", "N" an integer.

    >>> flags("photos,smoke,seeds=2", "digits", "photos", "smoke", "seeds=")
    ['photos', 'smoke', 'seeds=2']

    Raises:
      UserError: a word that is not allowed.
    """
    words = arg.replace(",", " ").split()
    for word in words:
        name, equals, _ = word.partition("=")
        if name + equals not in known and not (word.isdigit() and "N" in known):
            raise UserError(f'this experiment has no argument "{word}"{did_you_mean(word, known)}')
    return words


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config of "FILE[:arg]", with overrides such as "optim.lr=0.01".

    Raises:
      UserError: no such file, a file without `get_config`, an unknown key, or a value of a wrong
        type.
    """
    path, arg = split_arg(spec)
    module = load_module(path)
    if not hasattr(module, "get_config"):
        raise UserError(f'"{path}" has no get_config(arg); is it a study? then: aejax study {path}')
    with file_errors(path):
        config = module.get_config(arg)
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config returns {type(config).__name__}, not a config")
    return apply_overrides(config, overrides)


def apply_overrides(config: ConfigDict, overrides: Sequence[str] | Overrides) -> ConfigDict:
    """A copy of `config` with some keys changed.

    Args:
      overrides: "a.b=value" texts, or {"a.b": value}.

    Raises:
      UserError: an unknown key, or a value of a wrong type.

    >>> apply_overrides(base(), {"optim.lr": 0.01, "data.batch": 8}).optim.lr
    0.01
    """
    config = config.copy_and_resolve_references()
    if not isinstance(overrides, Mapping):
        overrides = parse_overrides(overrides)
    for dotted, value in overrides.items():
        _set(config, dotted, value)
    return config


def parse_overrides(texts: Sequence[str]) -> Overrides:
    """{"a.b": value} of texts "--config.a.b=value" or "a.b=value"; values are JSON, tuples or text.

    Raises:
      UserError: a text without "=".

    >>> parse_overrides(["--config.optim.lr=0.01", "data.source=bundled:photos"])
    {'optim.lr': 0.01, 'data.source': 'bundled:photos'}
    """
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f'"{text}" is not of the form key=value')
        pairs[key.removeprefix("--").removeprefix("config.")] = _parse(value)
    return pairs


def _parse(text: str) -> Any:
    """The value of a text: JSON (3, 1e-3, true, [1, 2], {...}), a Python tuple (1, 2), else
    text."""
    text = text.strip()
    if text.startswith("(") and text.endswith(")"):
        text = "[" + text[1:-1].rstrip(", ") + "]"
    for candidate in (text, {"True": "true", "False": "false", "None": "null"}.get(text, text)):
        try:
            return json.loads(candidate)
        except json.JSONDecodeError:
            pass
    return text.strip("'\"")


# Groups whose keys are arguments of a part, or names: new keys are allowed.
_OPEN = ("kwargs", "schedule_kwargs", "terms", "loss", "f_E", "f_D", "bottleneck", "ops",
         "quantise")  # fmt: skip


def split_key(dotted: str) -> list[str]:
    """ "model.f_E.width" -> ["model", "f_E", "width"]; names of losses may contain dots."""
    return dotted.split(".", 2 if dotted.startswith("objective.loss.") else -1)


def _set(config: ConfigDict, dotted: str, value: Any) -> None:
    """Sets one key, with the value converted to its type.

    Raises:
      UserError: no such key, or a value of another type.
    """
    group, key = _group_of(config, dotted)
    value = _converted(group.get(key), value, dotted)
    with group.ignore_type(), group.unlocked():
        group[key] = value


def _group_of(config: ConfigDict, dotted: str) -> tuple[ConfigDict, str]:
    """The group that holds a key, and the key's own name."""
    *parents, key = split_key(dotted)
    group = config
    for name in parents:
        group = group.get(name) if isinstance(group, ConfigDict) else None
    is_open = bool(parents) and parents[-1] in _OPEN
    if not isinstance(group, ConfigDict) or (key not in group and not is_open):
        raise UserError(f'no config key "{dotted}"{did_you_mean(dotted, all_keys(config))}')
    return group, key


def _converted(old: Any, value: Any, dotted: str) -> Any:
    """`value` converted to the type of `old`, the present value of the key (None = a new key).

    Lists become tuples, a single value a tuple of one, integers floats, and a text the part of that
    name.
    """
    if isinstance(old, ConfigDict):
        if isinstance(value, str) and "name" in old:  # --config.model.f_E=conv
            return part(value)
        if not isinstance(value, dict | ConfigDict):
            raise UserError(f'config key "{dotted}" is a group; set one of its keys')
        return type(old)(value) if isinstance(value, dict) else value
    value = tuple(value) if isinstance(value, list) else value
    if old is None:
        return value
    if isinstance(old, tuple):
        return value if isinstance(value, tuple) else (value,)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(old, float) and is_number:
        return float(value)
    if isinstance(old, str) and isinstance(value, int | float):  # a length in steps, say
        return str(value)
    if isinstance(value, type(old)) and isinstance(value, bool) == isinstance(old, bool):
        return value
    raise UserError(
        f'config key "{dotted}" takes {type(old).__name__}, such as {old!r}; got {value!r}'
    )


def all_keys(config: ConfigDict, prefix: str = "") -> list[str]:
    """All dotted keys of a config, without groups."""
    keys = []
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            keys += all_keys(value, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


# --- a config as text -----------------------------------------------------------------------------


def to_json(config: ConfigDict) -> str:
    """The config as sorted, indented JSON, the format of config.json."""
    return json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True) + "\n"


def plain(value: Any) -> Any:
    """Nested mappings as dicts and sequences as lists, as in JSON."""
    if isinstance(value, Mapping | ConfigDict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def from_json(text: str) -> ConfigDict:
    """The inverse of `to_json`; lists come back as tuples."""

    def with_tuples(value):
        if isinstance(value, dict):
            return {k: with_tuples(v) for k, v in value.items()}
        return tuple(with_tuples(v) for v in value) if isinstance(value, list) else value

    values: JsonObject = {k: with_tuples(v) for k, v in json.loads(text).items()}
    return ConfigDict(values | {k: Dotted(v) for k, v in values.items() if k == "objective"})


def with_defaults(stored: JsonObject, default: JsonObject | None = None) -> JsonObject:
    """The config (as JSON) of an older version with current keys: missing keys have their defaults,
    renamed parts their current names."""
    if default is None:
        default, stored = json.loads(to_json(base())), with_current_names(stored)
        stored = _with_start_in_model(stored)
    config = dict(stored)
    for name, value in default.items():
        if name not in config:
            config[name] = value
        elif isinstance(value, dict) and isinstance(config[name], dict) and name not in _OPEN:
            config[name] = with_defaults(config[name], value)
    return config


def _with_start_in_model(stored: JsonObject) -> JsonObject:
    """Moves objective.kwargs.start of aejax 0.1 to model.start, but not for a user's objective,
    which may have an argument `start`."""
    objective, model = stored.get("objective", {}), stored.get("model", {})
    kwargs = dict(objective.get("kwargs", {}))
    if "start" not in kwargs or not objective.get("name", "").startswith("aejax."):
        return stored
    start = kwargs.pop("start")
    if start and model.get("start") not in (None, "", start):
        raise UserError(
            f'model.start = "{model["start"]}" and objective.kwargs.start = "{start}" (its name in '
            "aejax 0.1) differ; set model.start only"
        )
    return stored | {
        "objective": objective | {"kwargs": kwargs},
        "model": model | {"start": model.get("start") or start},
    }


def current(config: ConfigDict) -> ConfigDict:
    """`config` of any version with all current keys and names of parts."""
    return from_json(json.dumps(with_defaults(json.loads(to_json(config)))))
