"""What is printed and written of a measurement: lines, Markdown, a figure, JSON; and the figures of
the literature beside it. Rows are those of `protocol.evaluate`."""

import csv
import json
import os
import pathlib
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aejax import files
from aejax.files import JsonObject

Row = Mapping[str, Any]


def line_of(row: Row) -> str:
    """One row as text."""
    similar = f"{row['ssim']:.4f}" if row.get("ssim") is not None else "-"
    return (
        f"{row['method']:<16} {_level(row)} {row['sigma']:<4g} {row['psnr']:6.2f} dB  "
        f"(noisy {row['noisy_psnr']:.2f})  ssim {similar}  "
        f"{row['seconds_per_mp']:8.3f} s/MP"
    )


def _level(row: Row) -> str:
    """What the numbers under "sigma" are levels of."""
    return row.get("corruption", "sigma")


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


def published(images: str, channels: int) -> list[JsonObject]:
    """Rows of figures from the literature for a set ("BSD68", "Set12", "CBSD68", ...), see
    published.csv beside this file: same noise convention, marked as published."""
    file = pathlib.Path(__file__).with_name("published.csv")
    kind = "gray" if channels == 1 else "colour"
    with file.open(newline="") as f:
        rows = [r for r in csv.DictReader(f) if r["set"].lower() == images.lower()]
    figures: dict[tuple[str, float], dict] = {}  # by method and sigma: the first source counts
    for r in rows:
        if r["colour_or_gray"] != kind or not r["sigma"].replace(".", "").isdigit():
            continue
        key = (r["method"], float(r["sigma"]))
        figures.setdefault(
            key,
            {
                "method": f"{r['method']} (published)",
                "sigma": float(r["sigma"]),
                "psnr": float(r["psnr"]),
                "ssim": float(r["ssim"]) if r["ssim"] else None,
                "params": round(float(r["params_M"]) * 1e6) if r["params_M"] else 0,
                "kmac_per_px": float(r["gmacs_256"]) * 1e9 / 65536 / 1e3 if r["gmacs_256"] else 0.0,
                "source": r["source"],
            },
        )
    return list(figures.values())


def table(rows: Sequence[Row], printed: Sequence[Row] = ()) -> str:
    """Markdown: a line per method, PSNR / SSIM at each sigma, time, size; published ones below."""
    sigmas = sorted({r["sigma"] for r in rows})
    level = _level(rows[0])
    head = ["method", *[f"{level} {s:g}: dB / SSIM" for s in sigmas], "s/MP", "params", "kMAC/px"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    if level != "sigma":
        first = [r for r in rows if r["method"] == rows[0]["method"]]
        noisy = {
            r["sigma"]: f"{r['noisy_psnr']:.2f}"
            + (f" / {r['noisy_ssim']:.4f}" if r.get("noisy_ssim") else "")
            for r in first
        }
        lines.append("| " + " | ".join(["untouched", *[noisy[s] for s in sigmas]]) + " | | | |")
    for group in (rows, [r for r in printed if r["sigma"] in sigmas]):
        names = dict.fromkeys(r["method"] for r in group)
        for name in names:
            mine = {r["sigma"]: r for r in group if r["method"] == name}
            cells = [name + (" (blind)" if next(iter(mine.values())).get("blind") else "")]
            for s in sigmas:
                r = mine.get(s)
                text = "" if r is None else f"{r['psnr']:.2f}"
                cells.append(text + (f" / {r['ssim']:.4f}" if r and r.get("ssim") else ""))
            times = [r["seconds_per_mp"] for r in mine.values() if r.get("seconds_per_mp")]
            one = next(iter(mine.values()))
            cells.append(f"{np.mean(times):.3f}" if times else "")
            cells.append(f"{one['params']:,}" if one["params"] else "")
            cells.append(f"{one['kmac_per_px']:.1f}" if one["kmac_per_px"] else "")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(rows: Sequence[Row], path: str | pathlib.Path, title: str = "") -> None:
    """Quality against time, one panel per sigma; published methods (no time) as levels, their names
    beside the panel in order, apart from each other."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sigmas = sorted({r["sigma"] for r in rows if r.get("seconds_per_mp")})
    fig, axes = plt.subplots(1, len(sigmas), figsize=(6.4 * len(sigmas), 4.6), squeeze=False)
    for ax, sigma in zip(axes[0], sigmas, strict=True):
        here = [r for r in rows if r["sigma"] == sigma]
        timed = [r for r in here if r.get("seconds_per_mp")]
        for r in timed:
            ours = bool(r["params"])
            ax.plot(r["seconds_per_mp"], r["psnr"], "D" if ours else "o",
                    color="tab:red" if ours else "tab:gray")  # fmt: skip
            ax.annotate(r["method"], (r["seconds_per_mp"], r["psnr"]), fontsize=7,
                        xytext=(4, 3), textcoords="offset points")  # fmt: skip
        printed = sorted((r for r in here if not r.get("seconds_per_mp")), key=lambda r: -r["psnr"])
        for r in printed:
            ax.axhline(r["psnr"], ls=":", lw=0.6, color="tab:blue", alpha=0.7)
        ax.margins(x=0.12)
        ax.set_xscale("log")
        low, high = ax.get_ylim()
        levels = [(r["psnr"] - low) / (high - low) for r in printed]
        for r, level, at in zip(printed, levels, apart(levels), strict=True):
            ax.annotate(r["method"].removesuffix(" (published)"), (1, level), (1.06, at),
                        "axes fraction", "axes fraction", fontsize=6, va="center",
                        color="tab:blue", arrowprops={"arrowstyle": "-", "color": "tab:blue",
                                                      "lw": 0.4, "alpha": 0.7, "shrinkA": 1,
                                                      "relpos": (0, 0.5)})  # fmt: skip
        ax.set_xlabel("seconds per megapixel")
        ax.set_ylabel("PSNR, dB")
        ax.set_title(
            f"{_level(timed[0])} {sigma:g}" + (" (dotted: published)" if printed else ""),
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


def write_json(path: str | pathlib.Path, rows: Sequence[Row], **about: object) -> None:
    """Rows and what they depend on, as committed beside an experiment."""
    text = json.dumps({**about, "machine": machine(), "rows": list(rows)}, indent=1)
    files.write_atomically(path, text + "\n")
