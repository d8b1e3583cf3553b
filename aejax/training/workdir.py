"""The folder of a run: its files, and the config keys that may change when it is resumed.

    config.json      the whole config, with every default
    spec.json        what the model was made for: shape and type of an example, classes, and the
                     fingerprints of the splits; written before the first step
    provenance.json  command, versions, machine; each resumption and the keys it changed
    checkpoints/     the last ones and the best one
    log.jsonl, pictures/, result.json

Nothing outside the folder is needed to load the model.
"""

import contextlib
import dataclasses
import json
import pathlib
import re
from collections.abc import Generator

import jax
from ml_collections import ConfigDict

from aejax import files, lease
from aejax.cluster import processes
from aejax.config import from_json, to_json, with_defaults
from aejax.data.pipeline import Pipeline
from aejax.data.source import Source
from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.machine.provenance import provenance
from aejax.result import Overrides
from aejax.types import Shape

Changes = dict[str, list[object]]  # dotted key of the config -> [old value, new value]
# Regex of the config keys that may change when a run is resumed; any other change is refused.
CHANGEABLE = re.compile(
    r"(log|eval|checkpoint)\..*|train\.(length|profile)"
    r"|optim\.(lr|schedule|schedule_kwargs|warmup|final_lr)(\..*)?"
)
# Of these, the keys whose change resumes a finished run.
RESUMES_FINISHED = re.compile(r"train\.length|eval\.(crop|examples|metrics|best)")
# Those that have no effect on a finished run, as it is not trained any more.
WITHOUT_EFFECT = re.compile(r"optim\..*")


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of the data as it was when the run began.

    Attributes:
      source: name of the source and the split in it.
      images: their number.
      shape: (h, w, c), or None if they differ in size.
      fingerprint: of the content.
    """

    source: str
    images: int
    shape: Shape | None
    fingerprint: str

    @classmethod
    def of(cls, source: Source) -> "Split":
        """The Split of an open data.source.Source."""
        return cls(source.name, len(source), source.shape, source.fingerprint)

    def difference(self, now: "Split") -> str:
        """How the split `now` differs from this one, in words; "" if the content is the same."""
        if self.fingerprint == now.fingerprint:
            return ""
        words = []
        if self.images != now.images:
            words.append(f"{self.images:,} images then, {now.images:,} now")
        if self.shape != now.shape:
            then, here = (
                "of several sizes" if s is None else "x".join(map(str, s))
                for s in (self.shape, now.shape)
            )
            words.append(f"{then} then, {here} now")
        if self.source != now.source:
            words.append(f"{self.source} then, {now.source} now")
        return "; ".join(words) or f"{self.images:,} images as before, of other names or content"


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a run's model was built for: its examples, classes and data.

    Attributes:
      example_shape: (h, w, c) of the images that reach the model in training.
      class_names: of the labels; () if the set has none.
      splits: "train" and "test".
    """

    example_shape: Shape
    class_names: tuple[str, ...] = ()
    splits: dict[str, Split] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, train: Pipeline, test: Pipeline) -> "Spec":
        """The Spec of a training and an evaluation pipeline."""
        return cls(
            train.image_shape,
            tuple(train.source.class_names),
            {"train": Split.of(train.source), "test": Split.of(test.source)},
        )

    def write(self, workdir: pathlib.Path) -> None:
        """Writes workdir/spec.json."""
        values = dataclasses.asdict(self) | {
            "version": 1,
            "channels": self.example_shape[-1],
            "dtype": "uint8",  # as stored; the model gets float32 in [0, 1]
        }
        files.write_atomically(workdir / "spec.json", json.dumps(values, indent=1) + "\n")

    @classmethod
    def read(cls, workdir: pathlib.Path) -> "Spec | None":
        """The Spec in workdir/spec.json; None for a run of aejax 0.1, which has none.

        Raises:
          UserError: the file is damaged.
        """
        file = workdir / "spec.json"
        if not file.is_file():
            return None
        try:
            values = json.loads(file.read_text())
            splits = {
                name: Split(**s | {"shape": s["shape"] and tuple(s["shape"])})
                for name, s in values["splits"].items()
            }
            return cls(tuple(values["example_shape"]), tuple(values["class_names"]), splits)
        except (ValueError, KeyError, TypeError) as e:
            raise UserError(f"{file} is damaged ({type(e).__name__}); copy the run anew") from e

    def check_same(self, now: "Spec", workdir: pathlib.Path) -> None:
        """Refuses to resume with other data.

        Raises:
          UserError: a split has changed; the message says what.
        """
        for name, split in self.splits.items():
            difference = split.difference(now.splits[name])
            if difference:
                raise UserError(
                    f"the {name} images of {workdir} have changed since the run began "
                    f"({difference}); restore them, use another --workdir, or go on with "
                    "--accept-data"
                )


def read_config(workdir: str | pathlib.Path) -> ConfigDict:
    """The config of the run in a workdir, converted to the keys and names of this version.

    Raises:
      UserError: the folder has no config.json, or it is damaged.
    """
    file = pathlib.Path(workdir) / "config.json"
    if not file.is_file():
        raise UserError(
            f"{workdir} holds no run (no config.json); give the --workdir of a training"
        )
    try:
        return from_json(json.dumps(with_defaults(json.loads(file.read_text()))))
    except ValueError as e:
        raise UserError(f"{file} is damaged ({e}); copy the run anew") from e


def changed_keys(workdir: pathlib.Path, config: ConfigDict) -> Changes:
    """How `config` differs from that of the run in `workdir`: {"optim.lr": [old, new], ...}.

    {} if there is no run.

    Raises:
      UserError: a key that may not change differs.
    """
    if not (workdir / "config.json").exists():
        return {}
    old, new = (_flat(json.loads(to_json(c))) for c in (read_config(workdir), config))
    changed = {
        k: [old.get(k), new.get(k)] for k in sorted({*old, *new}) if old.get(k) != new.get(k)
    }
    for key, (there, here) in changed.items():
        if not CHANGEABLE.fullmatch(key):
            raise UserError(
                f"{workdir} holds a run of another config ({key} is {there!r} there and {here!r} "
                "here); use another --workdir"
            )
    return changed


def _flat(tree: JsonObject, prefix: str = "") -> JsonObject:
    out = {}
    for name, value in tree.items():
        out |= (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return out


def record(
    workdir: pathlib.Path,
    config: ConfigDict,
    spec: Spec,
    step: int,
    *,
    overrides: Overrides,
    command: str,
    changed: Changes,
) -> None:
    """Writes config.json, spec.json and provenance.json, which claims the folder for this run."""
    file = workdir / "provenance.json"
    now = provenance(command)
    if (workdir / "config.json").exists() and file.exists():
        values = json.loads(file.read_text())
        entry = {"step": step, "command": now["command"], "date": now["date"], "changed": changed}
        values.setdefault("continued", []).append(entry)
    else:
        values = {"overrides": overrides} | now
    files.write_atomically(file, json.dumps(values, indent=1) + "\n")
    spec.write(workdir)
    files.write_atomically(workdir / "config.json", to_json(config))


def has_more_to_do(workdir: pathlib.Path, changed: Changes) -> bool:
    """Whether the changed keys resume a finished run.

    Raises:
      UserError: a changed key has no effect on a finished run, such as optim.lr.
    """
    if any(RESUMES_FINISHED.fullmatch(key) for key in changed):
        return True
    without_effect = [key for key in changed if WITHOUT_EFFECT.fullmatch(key)]
    if without_effect:
        raise UserError(
            f"{workdir} is finished, so that {without_effect[0]} changes nothing; give a longer "
            "train.length as well, or another --workdir"
        )
    return False


@contextlib.contextmanager
def leased(workdir: pathlib.Path) -> Generator[None]:
    """Creates the folder if needed and holds its lease: one process trains in it at a time.

    Raises:
      UserError: another process trains there, or the folder cannot be written.
    """
    refused, lock, is_new = "", None, not workdir.exists()
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            lock = lease.take_or_explain(workdir)
        except OSError as e:
            refused = str(unusable(workdir, e))
        except UserError as e:
            refused = str(e)
    if processes.any_process(bool(refused)):
        raise UserError(refused or f"process 0 cannot use {workdir} as workdir")
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
        if is_new and jax.process_index() == 0:
            with contextlib.suppress(OSError):
                workdir.rmdir()  # only if nothing was written


def unusable(workdir: pathlib.Path, error: OSError) -> UserError:
    """The error of a folder that cannot be created or written."""
    return UserError(f"cannot use {workdir} as workdir: {error.strerror or error}")
