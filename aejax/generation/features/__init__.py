"""Feature extractors for the metrics of generative models.

    classifier.py  a small classifier, trained on the same set and shipped with the package
    inception.py   Inception-v3, whose features published FIDs use; the user provides the weights
    torch_file.py  reads files of torch.save without torch
    batches.py     runs a compiled function over a large set

An extractor is a function of uint8 images [n, h, w, c] -> (features float64 [n, d], classes int
[n]).
"""

import pathlib

from aejax.generation.features import classifier, inception
from aejax.generation.features.batches import Extract


def extractor(name: str, any_hash: bool = False) -> tuple[Extract, str]:
    """(extractor, its name with hash).

    Args:
      name: of a shipped classifier, or a .pth or .safetensors file of Inception's weights.
      any_hash: accept another file than the one that published FIDs use.

    Raises:
      UserError: no such name or file, or a file with another hash.
    """
    if pathlib.Path(name).suffix in (".pth", ".pt", ".safetensors"):
        variables, name_with_hash = inception.load(name, any_hash)
        return inception.extractor(variables), name_with_hash
    return classifier.extractor(name), f"{name} {classifier.shipped(name)[2].sha256[:8]}"
