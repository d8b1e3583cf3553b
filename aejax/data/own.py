"""A user's own data source, "package.module:Class" or "package.module:Class:argument".

Its interface is `aejax.contracts.Source`.
"""

import dataclasses
import hashlib
import inspect
from pathlib import Path
from typing import ClassVar

import numpy as np

from aejax.contracts import Examples
from aejax.data.source import Source, content_hash
from aejax.errors import UserError
from aejax.registry import lookup


@dataclasses.dataclass
class OwnItems:
    """A user's examples as (uint8 [h, w, c], label) by index. Each is checked when it is read."""

    spec: str
    examples: Examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        example = self.examples[int(i)]
        if not isinstance(example, dict) or "image" not in example:
            raise self._misfit(i, f"a {type(example).__name__}")
        image = np.asarray(example["image"])
        image = image[..., None] if image.ndim == 2 else image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
            raise self._misfit(i, f"an image of {image.dtype} {list(image.shape)}")
        return image, int(example.get("label", -1))

    def _misfit(self, i: int, got: str) -> UserError:
        from aejax.contracts import words  # imports JAX, which reading processes do not need

        return UserError(
            f'data source "{self.spec}": example {i} is {got}, not {{"image": uint8 [h, w, c], c 1 '
            f'or 3, "label": int}}; {words("data source")}'
        )


def open_own(spec: str, split: str) -> tuple[OwnItems, dict]:
    """The examples of a source, and a dict with sizes, channels, fingerprint and class names.

    If the source has no `sizes`, `channels` and `fingerprint`, every image is read once.

    Raises:
      UserError: no such class, or it does not have the interface contracts.Source.
    """
    from aejax.contracts import words

    module, attribute, *argument = spec.split(":", 2)
    make = lookup(f"{module}:{attribute}", {}, "data source")
    try:
        inspect.signature(make).bind(split, *argument)
    except TypeError as e:
        takes = ", ".join(inspect.signature(make).parameters)
        raise UserError(f'data source "{spec}" takes ({takes}); {words("data source")}') from e
    examples = make(split, *argument)
    if not (hasattr(examples, "__len__") and hasattr(examples, "__getitem__")):
        raise UserError(
            f'data source "{spec}" returns {type(examples).__name__}, without len() and [i]; '
            + words("data source")
        )
    items = OwnItems(spec, examples)
    if not len(items):
        raise UserError(f'data source "{spec}" has no examples in its split "{split}"')
    about = {"class_names": tuple(map(str, getattr(examples, "class_names", ())))}
    names = ("sizes", "channels", "fingerprint")
    if all(hasattr(examples, name) for name in names):
        sizes, channels, fingerprint = (getattr(examples, name) for name in names)
        sizes = np.asarray(sizes, np.int32)
        if sizes.shape != (len(items), 2) or channels not in (1, 3):
            raise UserError(
                f'data source "{spec}": sizes {list(sizes.shape)} and channels {channels}, not '
                f"[{len(items)}, 2] (height and width) and 1 or 3"
            )
        return items, about | {
            "sizes": sizes, "channels": int(channels), "fingerprint": str(fingerprint)
        }  # fmt: skip
    sizes, channels, digest = np.zeros((len(items), 2), np.int32), 1, hashlib.sha256()
    hashes = np.zeros(len(items), np.uint64)
    for i in range(len(items)):
        image, label = items[i]
        sizes[i], channels = image.shape[:2], max(channels, image.shape[2])
        digest.update(f"{image.shape} {label}".encode())
        content = np.ascontiguousarray(image).tobytes()
        digest.update(content)
        hashes[i] = content_hash(content)
    return items, about | {
        "sizes": sizes, "channels": channels, "fingerprint": digest.hexdigest()[:20],
        "hashes": hashes,
    }  # fmt: skip


@dataclasses.dataclass(kw_only=True)
class OwnSource(Source):
    """A source of a user's examples: `items` are indices into `examples`."""

    on_disk: ClassVar[bool] = False

    examples: OwnItems

    def _decode(self, i, item):
        return self.examples[item]


def open_own_source(spec: str, split: str, data_dir: Path | None, holdout: int):
    """(source, {}) of a split; see `aejax.data.source.SOURCES`."""
    examples, about = open_own(spec, split)
    rows = range(len(examples))
    about |= {"key": about["fingerprint"], "part": f"{spec}({split!r})"}
    return OwnSource(spec, rows, [str(i) for i in rows], examples=examples, **about), {}
