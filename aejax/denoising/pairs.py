"""Evaluation on real noise: photographs with ground truth.

A pair is a noisy photograph and its ground truth, the mean of many shots of the same scene. No
noise is added, and the noise level is unknown. A baseline that needs a level gets one for all
pairs: that of LEVELS with the best PSNR on a subset of the same pairs, which favours the baseline.
PSNR and SSIM are those of `protocol`, over whole 8-bit images.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from aejax.denoising.protocol import Denoiser, Method, psnr, rounded, ssim, timed_run
from aejax.errors import UserError
from aejax.files import JsonObject

ENDINGS = (("_real", "_mean"), ("_noisy", "_clean"), ("_noisy", "_gt"))
LEVELS = (2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0)


@dataclasses.dataclass(frozen=True)
class Pair:
    """The two image files of a scene.

    Attributes:
      name: of the scene.
      noisy: the noisy photograph.
      clean: the ground truth.
      channels: 1 or 3 converts both images; 0 reads them as stored.
    """

    name: str
    noisy: pathlib.Path
    clean: pathlib.Path
    channels: int = 0

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(noisy, clean): uint8 [h, w, c].

        Raises:
          UserError: they differ in shape, or one cannot be read.
        """
        from aejax.data.decode import flatten
        from aejax.data.images import read_image

        files = (self.noisy, self.clean)
        noisy, clean = (flatten(read_image(f)[0], self.channels) for f in files)
        if noisy.shape != clean.shape:
            raise UserError(
                f"{self.noisy.name} is {list(noisy.shape)}, {self.clean.name} {list(clean.shape)}"
            )
        return noisy, clean


def find_pairs(
    folder: str | pathlib.Path, clean: str | pathlib.Path | None = None, channels: int = 0
) -> list[Pair]:
    """All pairs in one or two folders, sorted by name.

    Args:
      folder: the noisy images, or all images if `clean` is None; these have names that end in one
        of ENDINGS.
      clean: folder of the ground truth, with the same file names up to the extension.
      channels: as in `Pair`.

    Raises:
      UserError: no such folder, no pairs, or a file without a partner.
    """
    from aejax.data.walk import images_in

    files = images_in(folder)
    if clean is not None:
        partners = {f.stem: f for f in images_in(clean)}
        missing = [f.name for f in files if f.stem not in partners]
        if missing:
            raise UserError(f'{len(missing)} images, such as {missing[0]}, are not in "{clean}"')
        return [Pair(f.stem, f, partners[f.stem], channels) for f in files]
    by_stem = {f.stem: f for f in files}
    pairs, alone = [], []
    for noisy_end, clean_end in ENDINGS:
        for stem, f in by_stem.items():
            if stem.endswith(noisy_end):
                name = stem.removesuffix(noisy_end)
                if name + clean_end in by_stem:
                    pairs.append(Pair(name, f, by_stem[name + clean_end], channels))
                else:
                    alone.append(f.name)
    matched = {p.noisy.name for p in pairs}
    alone = [name for name in alone if name not in matched]
    if alone:
        raise UserError(f"{len(alone)} images, such as {alone[0]}, have no partner in {folder}")
    if not pairs:
        ends = ", ".join(f"NAME{a} / NAME{b}" for a, b in ENDINGS)
        raise UserError(f'no pairs in "{folder}": name them {ends}, or give two folders')
    return sorted(pairs, key=lambda p: p.name)


def subsampled(run: Denoiser, step: int = 2) -> Denoiser:
    """Pixel-shuffle down-sampling: makes a denoiser of white noise usable on correlated noise.

    The denoiser is applied to each of the step^2 images of every step-th pixel, in which the noise
    of neighbours is nearly independent (Zhou et al. 2020, "When AWGN-based denoiser meets real
    noises", arXiv:1904.03485; without its refinement).
    """

    def run_subsampled(x: np.ndarray, sigma: float | None) -> np.ndarray:
        y = np.empty_like(x)
        for i in range(step):
            for j in range(step):
                y[i::step, j::step] = run(np.ascontiguousarray(x[i::step, j::step]), sigma)
        return y

    return run_subsampled


def white_model_subsampled(channels: int) -> Method:
    """The shipped model for white noise, with `subsampled`."""
    from aejax.denoising.api import network_for

    network = network_for(channels, "white")
    note = f"{network.name}, on the 4 images of every second pixel"
    return Method(subsampled(network), blind=True, note=note)


def with_level(method: Method, sigma: float) -> Method:
    """The method with the same noise level for all images."""
    note = f"sigma {sigma:g}, the best single level on these pairs; {method.note}"
    return dataclasses.replace(method, run=lambda x, _: method.run(x, sigma), note=note)


def best_level(
    pictures: Sequence[tuple[np.ndarray, np.ndarray]],
    method: Method,
    levels: Sequence[float] = LEVELS,
) -> float:
    """The level (0..255) with the highest mean PSNR on pairs (noisy, clean), uint8 [h, w, c].

    Levels are tried in order until the PSNR decreases.
    """
    scores: list[float] = []
    for sigma in levels:
        outputs = [method.run(x.astype(np.float32) / 255, sigma) for x, _ in pictures]
        clean = [c for _, c in pictures]
        each = [psnr(c, rounded(y)) for c, y in zip(clean, outputs, strict=True)]
        scores.append(float(np.mean(each)))
        if len(scores) > 1 and scores[-1] < scores[-2]:
            break
    return levels[int(np.argmax(scores))]


@dataclasses.dataclass(frozen=True)
class PairRow:
    """Result of a method on real noise, mean over the pairs; attributes as of `tables.Row`.

    Attributes:
      worst: the smallest gain in PSNR over the noisy image, dB; negative if one became worse.
      seconds_per_mp: None for the row of the unprocessed images.
    """

    method: str
    psnr: float
    ssim: float | None
    worst: float
    seconds_per_mp: float | None
    params: int
    kmac_per_px: float
    blind: bool
    note: str
    per_image: list[float]

    @property
    def line(self) -> str:
        """The row as text."""
        similar = "-" if self.ssim is None else f"{self.ssim:.4f}"
        return f"{self.method:<20} {self.psnr:6.2f} dB  ssim {similar}  worst {self.worst:+.2f}"

    def to_dict(self) -> JsonObject:
        """The row as it is written to a result file."""
        return dataclasses.asdict(self)


def evaluate_pairs(
    pairs: Sequence[Pair],
    methods: Mapping[str, Method],
    *,
    with_ssim: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> list[PairRow]:
    """One row per method; the first one, "untouched", is that of the noisy images.

    Args:
      with_ssim: also measure SSIM, which takes longer.
      progress: called with a line per method.

    Raises:
      UserError: a pair cannot be read, or a method returned a wrong shape or values that are not
        finite.
    """
    rows = []
    base: list[float] = []
    for name, method in {"untouched": Method(lambda x, _: x, blind=True), **methods}.items():
        values, ssims, seconds, pixels = [], [], 0.0, 0
        compiled: set[tuple[int, ...]] = set()  # shapes
        for pair in pairs:
            noisy, clean = pair.read()
            x = noisy.astype(np.float32) / 255
            y, elapsed = timed_run(method, x, None, f"{name} on {pair.name}", compiled)
            seconds += elapsed
            pixels += x.shape[0] * x.shape[1]
            values.append(psnr(clean, y))
            if with_ssim:
                ssims.append(ssim(clean, y))
        base = base or values
        rows.append(
            PairRow(
                method=name,
                psnr=float(np.mean(values)),
                ssim=float(np.mean(ssims)) if ssims else None,
                worst=float(np.min(np.subtract(values, base))),
                seconds_per_mp=seconds / pixels * 1e6 if name != "untouched" else None,
                params=method.params,
                kmac_per_px=method.macs / 1e3,
                blind=method.blind,
                note=method.note,
                per_image=[round(v, 4) for v in values],
            )
        )
        progress(rows[-1].line)
    return rows


def table(rows: Sequence[PairRow]) -> str:
    """A Markdown table with a line per method."""
    lines = [
        "| method | PSNR, dB | SSIM | worst gain, dB | s/MP | settings |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        similar = "" if r.ssim is None else f"{r.ssim:.4f}"
        seconds = f"{r.seconds_per_mp:.2f}" if r.seconds_per_mp else ""
        cells = [r.method, f"{r.psnr:.2f}", similar, f"{r.worst:+.2f}", seconds, r.note]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def sheet(
    pairs: Sequence[Pair],
    methods: Mapping[str, Method],
    path: str | pathlib.Path,
    count: int = 6,
    side: int = 160,
) -> None:
    """Writes an image of centre crops, enlarged twice, with a row per scene: noisy, the result of
    each method, ground truth.

    Args:
      path: image file to write.
      count: number of scenes, evenly spaced in `pairs`.
      side: of a crop in image pixels.
    """
    from PIL import Image, ImageDraw

    names = ["untouched", *methods, "mean of many shots"]
    indices = np.linspace(0, len(pairs) - 1, min(count, len(pairs))).astype(int)
    rows = []
    for pair in (pairs[i] for i in indices):
        noisy, clean = pair.read()
        x = noisy.astype(np.float32) / 255
        views = [noisy, *(rounded(m.run(x, None)) for m in methods.values()), clean]
        h, w = noisy.shape[:2]
        top, left = max(0, (h - side) // 2), max(0, (w - side) // 2)
        crops = []
        for view in views:
            crop = view[top : top + side, left : left + side]
            crop = np.repeat(crop, 3, 2) if crop.shape[2] == 1 else crop
            pads = ((0, side - crop.shape[0]), (0, side - crop.shape[1]), (0, 0))
            crops.append(np.pad(crop, pads, constant_values=255))
        rows.append(np.concatenate(crops, 1).repeat(2, 0).repeat(2, 1))
    picture = np.concatenate([np.full((24, rows[0].shape[1], 3), 255, np.uint8), *rows])
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for i, name in enumerate(names):
        draw.text((2 * side * i + 6, 6), name, fill=(0, 0, 0))
    image.save(path)
