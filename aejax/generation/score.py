"""Every metric of a set of samples against real images, with what the figures rest on."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, UInt8

from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.generation import features
from aejax.generation.features.batches import Extract
from aejax.generation.features.classifier import JUDGES
from aejax.generation.metrics import (
    class_gap,
    frechet,
    kid,
    memorisation,
    prdc,
    sliced_wasserstein,
)

Images = UInt8[np.ndarray, "n h w c"]


@dataclasses.dataclass(frozen=True)
class Reference:
    """Real images and their features, loaded once and used for every model of a table.

    Attributes:
      name: of the set and split, "fashion_mnist test".
      extractor: name and hash of the extractor. extract: the extractor itself.
      features, labels: of the real images, [n, d] and [n].
      train_images: for the floor and the check of memorisation. images: the real images.
      floors: of `floor`, as they are computed.
    """

    name: str
    extractor: str
    extract: Extract
    features: Float[np.ndarray, "n d"]
    labels: Int[np.ndarray, " n"]
    train_images: Images | None = None
    images: Images | None = None
    floors: dict[tuple[int, int], float] = dataclasses.field(default_factory=dict, repr=False)

    def floor(self, n: int, seed: int = 0) -> float:
        """Frechet distance of n training images, drawn by the seed: what real data reach.

        Raises:
          ValueError: a reference without training images.
        """
        if self.train_images is None:
            raise ValueError(f"{self.name} has no training images")
        n = min(n, len(self.train_images))
        if (n, seed) not in self.floors:
            pick = np.random.default_rng(seed).choice(len(self.train_images), n, False)
            drawn = self.extract(self.train_images[pick])[0]
            self.floors[n, seed] = frechet(self.features, drawn)
        return self.floors[n, seed]


@dataclasses.dataclass(frozen=True)
class Score:
    """The metrics of one set of samples; definitions in metrics.py.

    Attributes:
      fd, fd_floor: Frechet distance of the samples, and of as many training images.
      kid, kid_std: kernel distance, mean and standard deviation over subsets.
      precision, recall, density, coverage: by nearest neighbours.
      swd: sliced Wasserstein distance. class_gap: total variation of the class shares.
      nn_ratio, copies: the check of memorisation, on pixels.
      n, n_real: samples and real images. reference, extractor: names.
    """

    fd: float
    kid: float
    kid_std: float
    precision: float
    recall: float
    density: float
    coverage: float
    swd: float
    class_gap: float
    n: int
    n_real: int
    reference: str
    extractor: str
    nn_ratio: float | None = None
    copies: float | None = None
    fd_floor: float | None = None

    def to_dict(self) -> JsonObject:
        """The values that were measured, for JSON."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}

    def caption(self) -> str:
        """One line with the Frechet distance and all it rests on."""
        floor = "" if self.fd_floor is None else f", real data {self.fd_floor:.3f}"
        return (
            f"FD {self.fd:.3f} (n = {self.n} against {self.n_real} of {self.reference}, "
            f"extractor {self.extractor}{floor})"
        )

    def other_figures(self) -> str:
        """One line with the other metrics, for below the caption."""
        names = ("precision", "recall", "density", "coverage", "nn_ratio", "copies")
        values = ((name, getattr(self, name)) for name in names)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in values if value is not None)
        return f"KID {self.kid:.4f} ± {self.kid_std:.4f}, {figures} (same sets and extractor)"


def score(reference: Reference, samples: Images, k: int = 5, seed: int = 0) -> Score:
    """Every metric of uint8 samples against the reference.

    Args:
      k: neighbours of precision, recall, density and coverage.
      seed: of the random subsets, directions and training images.

    Raises:
      UserError: samples of another shape than the real images, or too few of them.
    """
    if reference.images is not None and samples.shape[1:] != reference.images.shape[1:]:
        raise UserError(
            f"samples of {samples.shape[1:]} against {reference.name}, "
            f"whose images are {reference.images.shape[1:]}"
        )
    sample_features, labels = reference.extract(samples)
    mean, spread = kid(reference.features, sample_features, seed=seed)
    classes = int(max(reference.labels.max(), labels.max())) + 1
    result = Score(
        fd=frechet(reference.features, sample_features),
        kid=mean,
        kid_std=spread,
        **prdc(reference.features, sample_features, k),
        swd=sliced_wasserstein(reference.features, sample_features, seed=seed),
        class_gap=class_gap(reference.labels, labels, classes),
        n=len(samples),
        n_real=len(reference.features),
        reference=reference.name,
        extractor=reference.extractor,
    )
    if reference.train_images is None or reference.images is None:
        return result

    def pixels(images: Images) -> Float[np.ndarray, "n d"]:
        return images.reshape(len(images), -1).astype(np.float32) / 255.0

    few = min(2000, len(samples), len(reference.images))
    memory = memorisation(
        pixels(reference.train_images), pixels(reference.images[:few]), pixels(samples[:few])
    )
    return dataclasses.replace(
        result,
        nn_ratio=memory["nn_ratio"],
        copies=memory["copies"],
        fd_floor=reference.floor(len(samples), seed),
    )


def open_reference(
    source: str, name: str = "", data_dir: str | None = None, any_hash: bool = False
) -> Reference:
    """Test and training split of `source`, with the features of the test split.

    Args:
      name, any_hash: of the extractor, as in `features.extractor`; default the shipped classifier
        of this source.

    Raises:
      UserError: no shipped classifier was trained on this source, and no extractor is named.
    """
    from aejax.data.decoded import decoded
    from aejax.data.source import open_source

    if not name and source not in JUDGES:
        raise UserError(
            f"no shipped classifier was trained on {source} (only on {', '.join(JUDGES)}); name "
            "the file of Inception's weights with --fid-weights"
        )
    extract, name_with_hash = features.extractor(name or JUDGES[source], any_hash)
    splits = [decoded(open_source(source, s, data_dir=data_dir)) for s in ("train", "test")]
    train, test = (np.asarray(s.data).reshape(-1, *(s.source.shape or ())) for s in splits)
    test_features, labels = extract(test)
    split = f"{source.rpartition(':')[2]} test"
    return Reference(split, name_with_hash, extract, test_features, labels, train, test)
