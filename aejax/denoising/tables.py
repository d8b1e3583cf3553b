"""Output of an evaluation: text lines, Markdown tables, a figure, JSON; and published results for
comparison."""

import csv
import dataclasses
import json
import os
import pathlib
import platform
import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from aejax import files
from aejax.files import JsonObject


@dataclasses.dataclass(frozen=True)
class Row:
    """Result of a method at one level, mean over the images of a set.

    Attributes:
      method: its label.
      sigma: the noise level (0..255), or the level of `corruption`.
      psnr: of the denoised images, dB.
      ssim: of the denoised images; None if not measured.
      noisy_psnr, noisy_ssim: the same of the noisy images.
      seconds_per_mp: wall time per million pixels, without compilation.
      params: number of trained parameters; 0 if there are none.
      kmac_per_px: thousand multiply-accumulates per pixel; 0 if unknown.
      blind: whether the method is never given the level.
      note: where its settings or weights come from.
      per_image: PSNR of each image.
      corruption: "gaussian" (white noise) or another name in `aejax.corrupt`.
    """

    method: str
    sigma: float
    psnr: float
    ssim: float | None
    noisy_psnr: float
    noisy_ssim: float | None
    seconds_per_mp: float
    params: int
    kmac_per_px: float
    blind: bool
    note: str
    per_image: list[float]
    corruption: str = "gaussian"

    @property
    def level(self) -> str:
        """Name of the quantity `sigma`, for tables."""
        return "sigma" if self.corruption == "gaussian" else self.corruption

    @property
    def line(self) -> str:
        """The row as text."""
        similar = "-" if self.ssim is None else f"{self.ssim:.4f}"
        return (
            f"{self.method:<16} {self.level} {self.sigma:<4g} {self.psnr:6.2f} dB  "
            f"(noisy {self.noisy_psnr:.2f})  ssim {similar}  {self.seconds_per_mp:8.3f} s/MP"
        )

    def to_dict(self) -> JsonObject:
        """The row as it is written to a result file; "corruption" is left out for white noise."""
        values = dataclasses.asdict(self)
        if self.corruption == "gaussian":
            del values["corruption"]
        return values


@dataclasses.dataclass(frozen=True)
class Published:
    """A published result; `source` is the paper, the other attributes are those of `Row`."""

    method: str
    sigma: float
    psnr: float
    ssim: float | None
    params: int
    kmac_per_px: float
    source: str

    blind: ClassVar[bool] = False
    seconds_per_mp: ClassVar[None] = None

    def to_dict(self) -> JsonObject:
        """The result as it is written to a result file."""
        return dataclasses.asdict(self)


def machine() -> JsonObject:
    """Hardware, load, versions and date, on which measured times depend."""
    import jax

    model = platform.processor() or platform.machine()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def published(images: str, channels: int) -> list[Published]:
    """Published results for a set ("BSD68", "Set12", "CBSD68", ...) with the noise of `protocol`.

    They are read from published.csv beside this file. If several sources have a method, the first
    one is taken.
    """
    file = pathlib.Path(__file__).with_name("published.csv")
    kind = "gray" if channels == 1 else "colour"
    with file.open(newline="") as f:
        rows = [r for r in csv.DictReader(f) if r["set"].lower() == images.lower()]
    results: dict[tuple[str, float], Published] = {}  # by method and sigma
    for r in rows:
        if r["colour_or_gray"] != kind or not r["sigma"].replace(".", "").isdigit():
            continue
        key = (r["method"], float(r["sigma"]))
        results.setdefault(
            key,
            Published(
                method=f"{r['method']} (published)",
                sigma=float(r["sigma"]),
                psnr=float(r["psnr"]),
                ssim=float(r["ssim"]) if r["ssim"] else None,
                params=round(float(r["params_M"]) * 1e6) if r["params_M"] else 0,
                kmac_per_px=float(r["gmacs_256"]) * 1e9 / 65536 / 1e3 if r["gmacs_256"] else 0.0,
                source=r["source"],
            ),
        )
    return list(results.values())


def table(rows: Sequence[Row], printed: Sequence[Published] = ()) -> str:
    """A Markdown table with a line per method: PSNR / SSIM at each sigma, time, parameters, MACs.

    Args:
      rows: as of `protocol.evaluate`.
      printed: published results, appended below.
    """
    sigmas = sorted({r.sigma for r in rows})
    level = rows[0].level
    head = ["method", *[f"{level} {s:g}: dB / SSIM" for s in sigmas], "s/MP", "params", "kMAC/px"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    if level != "sigma":
        noisy = {
            r.sigma: f"{r.noisy_psnr:.2f}" + (f" / {r.noisy_ssim:.4f}" if r.noisy_ssim else "")
            for r in rows
            if r.method == rows[0].method
        }
        lines.append("| " + " | ".join(["untouched", *[noisy[s] for s in sigmas]]) + " | | | |")
    for group in (rows, [r for r in printed if r.sigma in sigmas]):
        names = dict.fromkeys(r.method for r in group)
        for name in names:
            by_sigma = {r.sigma: r for r in group if r.method == name}
            first = next(iter(by_sigma.values()))
            cells = [name + (" (blind)" if first.blind else "")]
            for s in sigmas:
                r = by_sigma.get(s)
                text = "" if r is None else f"{r.psnr:.2f}"
                cells.append(text + (f" / {r.ssim:.4f}" if r and r.ssim else ""))
            times = [r.seconds_per_mp for r in by_sigma.values() if r.seconds_per_mp]
            cells.append(f"{np.mean(times):.3f}" if times else "")
            cells.append(f"{first.params:,}" if first.params else "")
            cells.append(f"{first.kmac_per_px:.1f}" if first.kmac_per_px else "")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(
    rows: Sequence[Row],
    path: str | pathlib.Path,
    title: str = "",
    printed: Sequence[Published] = (),
) -> None:
    """Draws PSNR against time, one panel per sigma. Published results have no time: they are
    horizontal lines with their names at the right.

    Args:
      path: image file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sigmas = sorted({r.sigma for r in rows})
    fig, axes = plt.subplots(1, len(sigmas), figsize=(6.4 * len(sigmas), 4.6), squeeze=False)
    for ax, sigma in zip(axes[0], sigmas, strict=True):
        for r in (r for r in rows if r.sigma == sigma):
            ours = bool(r.params)
            ax.plot(r.seconds_per_mp, r.psnr, "D" if ours else "o",
                    color="tab:red" if ours else "tab:gray")  # fmt: skip
            ax.annotate(r.method, (r.seconds_per_mp, r.psnr), fontsize=7,
                        xytext=(4, 3), textcoords="offset points")  # fmt: skip
        known = sorted((r for r in printed if r.sigma == sigma), key=lambda r: -r.psnr)
        for r in known:
            ax.axhline(r.psnr, ls=":", lw=0.6, color="tab:blue", alpha=0.7)
        ax.margins(x=0.12)
        ax.set_xscale("log")
        low, high = ax.get_ylim()
        levels = [(r.psnr - low) / (high - low) for r in known]
        for r, level, place in zip(known, levels, separated(levels), strict=True):
            ax.annotate(r.method.removesuffix(" (published)"), (1, level), (1.06, place),
                        "axes fraction", "axes fraction", fontsize=6, va="center",
                        color="tab:blue", arrowprops={"arrowstyle": "-", "color": "tab:blue",
                                                      "lw": 0.4, "alpha": 0.7, "shrinkA": 1,
                                                      "relpos": (0, 0.5)})  # fmt: skip
        ax.set_xlabel("seconds per megapixel")
        ax.set_ylabel("PSNR, dB")
        ax.set_title(
            f"{rows[0].level} {sigma:g}" + (" (dotted: published)" if known else ""),
            fontsize=10,
        )
        ax.grid(alpha=0.3)
    fig.suptitle(title)
    fig.tight_layout()
    fig.savefig(path, dpi=130)
    plt.close(fig)


def separated(levels: Sequence[float], gap: float = 0.036) -> list[float]:
    """Positions of labels in [0, 1] near decreasing `levels`, at least `gap` apart if possible.

    >>> aejax.denoising.tables.separated([0.5, 0.5, 0.5], gap=0.25)
    [0.5, 0.25, 0.0]
    """
    gap = min(gap, 1.0 / max(1, len(levels)))
    places: list[float] = []
    for i, level in enumerate(levels):
        lowest = gap * (len(levels) - 1 - i)  # leaves room for the labels below
        highest = places[-1] - gap if places else 1.0
        places.append(min(max(level, lowest), highest))
    return places


def write_json(path: str | pathlib.Path, rows: Sequence[object], **about: object) -> None:
    """Writes rows as JSON, with the machine and further entries.

    Args:
      rows: objects with a method `to_dict`.
      about: entries of the file, such as the command.
    """
    values = {**about, "machine": machine(), "rows": rows}
    text = json.dumps(values, indent=1, default=lambda row: row.to_dict())
    files.write_atomically(path, text + "\n")
