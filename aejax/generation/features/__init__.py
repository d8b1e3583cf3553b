"""Feature extractors: what samples and real pictures are compared by.

    classifier.py  a small classifier of the domain, shipped with the package
    inception.py   Inception-v3, whose features the published FIDs use; weights from the user's file
    torch_file.py  reads that file, as torch.save wrote it, without torch

An extractor is a function of uint8 images [n, h, w, c] -> (features [n, d], classes [n]), float64
and int.
"""

import pathlib

from aejax.generation.features import classifier, inception
from aejax.generation.features.batches import Extract


def extractor(name: str, any_hash: bool = False) -> tuple[Extract, str]:
    """(extractor, its name with hash) of a shipped classifier, or of a .pth or .safetensors file of
    Inception's weights.

    Args:
      any_hash: take another file than the one that published FIDs rest on.

    Raises:
      UserError: no such name or file, or a file of another hash.
    """
    if pathlib.Path(name).suffix in (".pth", ".pt", ".safetensors"):
        variables, name_with_hash = inception.load(name, any_hash)
        return inception.extractor(variables), name_with_hash
    return classifier.extractor(name), f"{name} {classifier.shipped(name)[2].sha256[:8]}"
