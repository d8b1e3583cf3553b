"""Who judges samples: a shipped classifier of the domain, or Inception from the user's file; and
the real images that it compares them with."""

import pathlib
from collections.abc import Callable

import numpy as np

from aejax.errors import UserError
from aejax.generation import inception
from aejax.generation.classifier import JUDGES, extractor, shipped
from aejax.generation.metrics import Reference


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
    from aejax.data.decoded import decoded
    from aejax.data.source import open_source

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
