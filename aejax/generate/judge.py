"""Who judges samples: a shipped classifier of the domain, or Inception from the user's file; and
the real images that it compares them with."""

import json
import pathlib
from collections.abc import Callable

import numpy as np

from aejax import weights
from aejax.errors import UserError
from aejax.generate import inception
from aejax.generate.classifier import extractor, shipped
from aejax.generate.metrics import Reference

# data.source -> the classifier that was trained on its training split
JUDGES = {"tfds:mnist": "digits-classifier", "tfds:fashion_mnist": "fashion-classifier"}


def judge(name: str, any_hash: bool = False) -> tuple[Callable, str]:
    """(extract, name with hash) of a shipped classifier, or of a .pth or .safetensors of the
    Inception that the FID in print rests on.

    Args:
      any_hash: take another file than the published one.

    Raises:
      UserError: no such name or file, or a file of another hash.
    """
    if pathlib.Path(name).suffix in (".pth", ".pt", ".safetensors"):
        variables, known_as = inception.load(name, any_hash)
        return inception.extractor(variables), known_as
    return extractor(name), f"{name} {shipped(name)[2]['sha256'][:8]}"


def reference(
    source: str, name: str = "", data_dir: str | None = None, any_hash: bool = False
) -> Reference:
    """Test and training split of `source` as the judge sees them; `name` as in `judge`, default the
    classifier of this source.

    Raises:
      UserError: no classifier was trained on this source and no other judge is named.
    """
    from aejax.data.source import decoded, open_source

    if not name and source not in JUDGES:
        raise UserError(
            f"no shipped classifier knows {source} (only {', '.join(JUDGES)}); name the file of "
            "Inception's weights with --fid-weights"
        )
    extract, known_as = judge(name or JUDGES[source], any_hash)
    sets = [decoded(open_source(source, s, data_dir=data_dir)) for s in ("train", "test")]
    train, test = (np.asarray(s.data).reshape(-1, *s.source.shape) for s in sets)
    features, labels = extract(test)
    split = f"{source.rpartition(':')[2]} test"
    return Reference(split, known_as, extract, features, labels, train, test)


def refuse_judge(name: str) -> None:
    """A classifier that judges must not be trained against: its distance would tell nothing.

    Raises:
      UserError: `name` is one of the judges, or weights equal to one of theirs.
    """
    path = weights._path(name)
    if not path.with_suffix(".json").is_file():
        return  # not there: loading it tells so
    digest = json.loads(path.with_suffix(".json").read_text()).get("sha256")
    for known in JUDGES.values():
        there = weights.FOLDER / f"{known}.json"
        same = there.is_file() and json.loads(there.read_text())["sha256"] == digest
        if path.stem == known or same:
            raise UserError(
                f'perceptual_model "{name}" is the classifier whose features judge the samples; '
                f"take another, such as {known.replace('classifier', 'perceptual')}"
            )
