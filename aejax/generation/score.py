"""All metrics of a set of samples against real images, with the extractor and sets they depend
on."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, UInt8

from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.generation import features
from aejax.generation.features.batches import Extract
from aejax.generation.features.classifier import SCORING_CLASSIFIERS
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
    """Real images and their features, computed once for all models of a table.

    Attributes:
      name: of the set and split, "fashion_mnist test".
      extractor: name and hash of the extractor.
      extract: the extractor.
      features: of the real images, [n, d].
      labels: of the real images as the extractor predicts them, [n].
      train_images: for the floor and the test of memorisation.
      images: the real images.
      floors: cached results of `floor`.
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
        """Frechet distance of n random training images: the value that real data reach.

        Raises:
          ValueError: the reference has no training images.
        """
        if self.train_images is None:
            raise ValueError(f"{self.name} has no training images")
        n = min(n, len(self.train_images))
        if (n, seed) not in self.floors:
            indices = np.random.default_rng(seed).choice(len(self.train_images), n, False)
            train_features = self.extract(self.train_images[indices])[0]
            self.floors[n, seed] = frechet(self.features, train_features)
        return self.floors[n, seed]


@dataclasses.dataclass(frozen=True)
class Score:
    """The metrics of one set of samples; see metrics.py for definitions.

    Attributes:
      fd: Frechet distance of the samples.
      fd_floor: Frechet distance of as many training images.
      kid, kid_std: kernel distance, mean and standard deviation over subsets.
      precision, recall, density, coverage: see `metrics.prdc`.
      swd: sliced Wasserstein distance.
      class_gap: total variation distance of the predicted class distributions.
      nn_ratio, copies: see `metrics.memorisation`; on pixels.
      n, n_real: number of samples and of real images.
      reference, extractor: names.
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
        """The measured values, for JSON."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}

    def caption(self) -> str:
        """A line with the Frechet distance, n, reference, extractor and floor."""
        floor = "" if self.fd_floor is None else f", real data {self.fd_floor:.3f}"
        return (
            f"FD {self.fd:.3f} (n = {self.n} against {self.n_real} of {self.reference}, "
            f"extractor {self.extractor}{floor})"
        )

    def other_figures(self) -> str:
        """A line with the other metrics."""
        names = ("precision", "recall", "density", "coverage", "nn_ratio", "copies")
        values = ((name, getattr(self, name)) for name in names)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in values if value is not None)
        return f"KID {self.kid:.4f} ± {self.kid_std:.4f}, {figures} (same sets and extractor)"


def score(reference: Reference, samples: Images, k: int = 5, seed: int = 0) -> Score:
    """All metrics of uint8 samples [n, h, w, c] against the reference.

    Args:
      k: number of nearest neighbours in `metrics.prdc`.
      seed: of random subsets, directions and training images.

    Raises:
      UserError: the samples have another shape than the real images, or are too few.
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

    n = min(2000, len(samples), len(reference.images))
    nearest_training = memorisation(
        pixels(reference.train_images), pixels(reference.images[:n]), pixels(samples[:n])
    )
    return dataclasses.replace(
        result,
        nn_ratio=nearest_training["nn_ratio"],
        copies=nearest_training["copies"],
        fd_floor=reference.floor(len(samples), seed),
    )


def open_reference(
    source: str, name: str = "", data_dir: str | None = None, any_hash: bool = False
) -> Reference:
    """Reads the test and training split of `source`, and computes the features of the test split.

    Args:
      source: a data.source, such as "tfds:fashion_mnist".
      name: of the extractor, as of `features.extractor`; default: the shipped classifier of this
        source.
      any_hash: as of `features.extractor`.

    Raises:
      UserError: no extractor is given, and no shipped classifier was trained on this source.
    """
    from aejax.data.decoded import decoded
    from aejax.data.source import open_source

    if not name and source not in SCORING_CLASSIFIERS:
        raise UserError(
            f"no shipped classifier was trained on {source} (only on "
            f"{', '.join(SCORING_CLASSIFIERS)}); give the file of Inception's weights with "
            "--fid-weights"
        )
    extract, name_with_hash = features.extractor(name or SCORING_CLASSIFIERS[source], any_hash)
    splits = [decoded(open_source(source, s, data_dir=data_dir)) for s in ("train", "test")]
    train, test = (np.asarray(s.data).reshape(-1, *(s.source.shape or ())) for s in splits)
    test_features, labels = extract(test)
    split = f"{source.rpartition(':')[2]} test"
    return Reference(split, name_with_hash, extract, test_features, labels, train, test)
