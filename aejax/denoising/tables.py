"""What is printed and written of a measurement: lines, Markdown, a figure, JSON; and the figures of
the literature beside it."""

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
    """A method at one level, the mean over the images of a set.

    Attributes:
      sigma: the level, of 0..255, or that of `corruption`.
      psnr, noisy_psnr: dB, after and before; ssim, noisy_ssim: None if not measured.
      seconds_per_mp: wall time per million pixels, compilation left out.
      params: trained parameters; kmac_per_px: thousand multiply-accumulates; 0 if unknown.
      blind: it is never given the level.
      note: where its settings or weights come from.
      per_image: PSNR of each image.
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
        """What `sigma` is a level of."""
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
        """The row as a result file has it: a corruption is named if it is no white noise."""
        values = dataclasses.asdict(self)
        if self.corruption == "gaussian":
            del values["corruption"]
        return values


@dataclasses.dataclass(frozen=True)
class Published:
    """A figure of the literature, as a `Row` has them; `source` says whose."""

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
        """The figure as a result file has it."""
        return dataclasses.asdict(self)


def machine() -> JsonObject:
    """What a measured time depends on."""
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
    """Figures from the literature for a set ("BSD68", "Set12", "CBSD68", ...), see
    published.csv beside this file: same noise convention, marked as published."""
    file = pathlib.Path(__file__).with_name("published.csv")
    kind = "gray" if channels == 1 else "colour"
    with file.open(newline="") as f:
        rows = [r for r in csv.DictReader(f) if r["set"].lower() == images.lower()]
    figures: dict[tuple[str, float], Published] = {}  # by method and sigma: the first source counts
    for r in rows:
        if r["colour_or_gray"] != kind or not r["sigma"].replace(".", "").isdigit():
            continue
        key = (r["method"], float(r["sigma"]))
        figures.setdefault(
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
    return list(figures.values())


def table(rows: Sequence[Row], printed: Sequence[Published] = ()) -> str:
    """Markdown: a line per method, PSNR / SSIM at each sigma, time, size; published ones below."""
    sigmas = sorted({r.sigma for r in rows})
    level = rows[0].level
    head = ["method", *[f"{level} {s:g}: dB / SSIM" for s in sigmas], "s/MP", "params", "kMAC/px"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    if level != "sigma":
        first = [r for r in rows if r.method == rows[0].method]
        noisy = {
            r.sigma: f"{r.noisy_psnr:.2f}" + (f" / {r.noisy_ssim:.4f}" if r.noisy_ssim else "")
            for r in first
        }
        lines.append("| " + " | ".join(["untouched", *[noisy[s] for s in sigmas]]) + " | | | |")
    for group in (rows, [r for r in printed if r.sigma in sigmas]):
        names = dict.fromkeys(r.method for r in group)
        for name in names:
            mine = {r.sigma: r for r in group if r.method == name}
            cells = [name + (" (blind)" if next(iter(mine.values())).blind else "")]
            for s in sigmas:
                r = mine.get(s)
                text = "" if r is None else f"{r.psnr:.2f}"
                cells.append(text + (f" / {r.ssim:.4f}" if r and r.ssim else ""))
            times = [r.seconds_per_mp for r in mine.values() if r.seconds_per_mp]
            one = next(iter(mine.values()))
            cells.append(f"{np.mean(times):.3f}" if times else "")
            cells.append(f"{one.params:,}" if one.params else "")
            cells.append(f"{one.kmac_per_px:.1f}" if one.kmac_per_px else "")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(
    rows: Sequence[Row],
    path: str | pathlib.Path,
    title: str = "",
    printed: Sequence[Published] = (),
) -> None:
    """Quality against time, one panel per sigma; published methods (no time) as levels, their names
    beside the panel in order, apart from each other."""
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
        for r, level, at in zip(known, levels, apart(levels), strict=True):
            ax.annotate(r.method.removesuffix(" (published)"), (1, level), (1.06, at),
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


def apart(levels: Sequence[float], gap: float = 0.036) -> list[float]:
    """Places near falling `levels` in 0 to 1, at least `gap` from each other if there is room."""
    gap = min(gap, 1.0 / max(1, len(levels)))
    places: list[float] = []
    for i, level in enumerate(levels):
        room = gap * (len(levels) - 1 - i)  # what must still fit below
        highest = places[-1] - gap if places else 1.0
        places.append(min(max(level, room), highest))
    return places


def write_json(path: str | pathlib.Path, rows: Sequence[object], **about: object) -> None:
    """Rows (what has a `to_dict`) and what they depend on, as committed beside an experiment."""
    values = {**about, "machine": machine(), "rows": rows}
    text = json.dumps(values, indent=1, default=lambda row: row.to_dict())
    files.write_atomically(path, text + "\n")
