"""How denoisers are measured, to the last rounding, so that a table can be reproduced.

White Gaussian noise of standard deviation sigma / 255 is added to the float image, neither clipped
nor rounded, drawn by NumPy's `default_rng(1000 * sigma + index)` with the index of the image in the
sorted list of its folder. Every method of a run gets the same noisy arrays. The output is clipped
to [0, 1] and rounded to 8 bits; PSNR is over the whole image and all channels, no border cropped,
and the mean of the images' PSNR is reported. SSIM
is scikit-image's with Gaussian weights of sigma 1.5.
Gray sets are taken as stored. Blind methods are never told sigma.
"""

import dataclasses
import json
import math
import pathlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from aejax import files
from aejax.errors import UserError

# A denoiser: (noisy [h, w, c] float32, sigma on the 0..255 scale or None) -> [h, w, c] float32.
Denoiser = Callable[[np.ndarray, float | None], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Method:
    """What is measured.

    Attributes:
      run: (noisy, sigma or None) -> denoised.
      blind: it is never told sigma.
      params: number of trained parameters; 0 if none.
      macs: multiply-accumulates per pixel; 0 if unknown.
      note: where its settings or weights come from.
    """

    run: Denoiser
    blind: bool = False
    params: int = 0
    macs: float = 0.0
    note: str = ""


def clean_images(folder: str | pathlib.Path, channels: int = 0) -> list[tuple[str, np.ndarray]]:
    """(name, uint8 [h, w, c]) of the images of a folder, sorted by file name.

    Args:
      channels: 1 or 3 converts; 0 takes them as stored.

    Raises:
      UserError: no such folder or no images in it; a file that is no picture.
    """
    from aejax.data.decode import flatten
    from aejax.data.images import read_image
    from aejax.data.walk import images_in

    return [(f.name, flatten(read_image(f)[0], channels)) for f in images_in(folder)]


def noisy_image(x: np.ndarray, sigma: float, index: int) -> Float[np.ndarray, "h w c"]:
    """The noisy float32 image of the protocol from a clean uint8 one [h, w, c]."""
    rng = np.random.default_rng(int(round(1000 * sigma)) + index)
    noise = rng.standard_normal(x.shape) * (sigma / 255.0)
    return (x.astype(np.float64) / 255.0 + noise).astype(np.float32)


def corrupted_image(
    x: np.ndarray, corruption: str, value: float, index: int
) -> Float[np.ndarray, "h w c"]:
    """A float32 image from a clean uint8 one [h, w, c] by a corruption of `aejax.corrupt`.

    Its first parameter is `value`: "gaussian" is `noisy_image`, "jpeg" a real file (libjpeg's
    quality, 4:2:0), the others are drawn with a key of `value` and `index`.

    Raises:
      UserError: no such corruption, or one without a parameter.
    """
    if corruption == "gaussian":
        return noisy_image(x, value, index)
    if corruption == "jpeg":
        return _jpeg(x, round(value))
    import jax

    from aejax.corrupt import chain, first_level

    spec = {"name": corruption, first_level(corruption): value}
    key = jax.random.key(int(round(1000 * value)) + index)
    return np.asarray(chain((spec,))(key, x[None].astype(np.float32) / 255)[0][0])


def _jpeg(x: np.ndarray, quality: int) -> Float[np.ndarray, "h w c"]:
    import io

    from PIL import Image

    file = io.BytesIO()
    picture = Image.fromarray(x[..., 0] if x.shape[2] == 1 else x)
    picture.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file), np.float32).reshape(x.shape) / 255


def rounded(y: np.ndarray) -> np.ndarray:
    """Clipped to [0, 1] and rounded to 8 bits: uint8."""
    return np.round(np.clip(np.asarray(y, np.float64), 0, 1) * 255).astype(np.uint8)


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    """dB between two uint8 images; infinite if they are equal."""
    mse = np.mean((x.astype(np.float64) - y.astype(np.float64)) ** 2)
    return math.inf if mse == 0 else float(10 * np.log10(255.0**2 / mse))


def ssim(x: np.ndarray, y: np.ndarray) -> float:
    """scikit-image's SSIM of two uint8 images [h, w, c] with Gaussian weights of sigma 1.5."""
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            x,
            y,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
    )


def evaluate(
    images: Sequence[tuple[str, np.ndarray]],
    methods: Mapping[str, Method],
    sigmas: Sequence[float],
    *,
    corruption: str = "gaussian",
    with_ssim: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """One row per method and sigma, each method on the same noisy arrays.

    Args:
      corruption: other than "gaussian", `sigmas` are its levels (see `corrupted_image`) and nobody
        is told them.

    Returns:
      rows with method, sigma, psnr, ssim, noisy_psnr, seconds_per_mp (wall time per million pixels;
      each new image shape is run once unmeasured, so that compilation is not in it), params,
      kmac_per_px, blind, and the PSNR of each image.

    Raises:
      UserError: a method returned a wrong shape or values that are not finite.
    """
    rows = []
    for name, method in methods.items():
        seen = set()
        for sigma in sigmas:
            values, similar, noisy_values, seconds, pixels = [], [], [], 0.0, 0
            for index, (file, x) in enumerate(images):
                noisy = corrupted_image(x, corruption, sigma, index)
                told = None if method.blind or corruption != "gaussian" else float(sigma)
                if x.shape not in seen:
                    method.run(noisy, told)
                    seen.add(x.shape)
                start = time.perf_counter()
                y = np.asarray(method.run(noisy, told))
                seconds += time.perf_counter() - start
                if y.shape != x.shape or not np.isfinite(y).all():
                    raise UserError(f"{name} on {file}: shape {y.shape} or values not finite")
                y = rounded(y)
                pixels += x.shape[0] * x.shape[1]
                values.append(psnr(x, y))
                noisy_values.append(psnr(x, rounded(noisy)))
                if with_ssim:
                    similar.append(ssim(x, y))
            rows.append(
                {
                    "method": name,
                    "sigma": float(sigma),
                    "psnr": float(np.mean(values)),
                    "ssim": float(np.mean(similar)) if similar else None,
                    "noisy_psnr": float(np.mean(noisy_values)),
                    "seconds_per_mp": seconds / pixels * 1e6,
                    "params": method.params,
                    "kmac_per_px": method.macs / 1e3,
                    "blind": method.blind,
                    "note": method.note,
                    "per_image": [round(v, 4) for v in values],
                }
                | ({} if corruption == "gaussian" else {"corruption": corruption})
            )
            progress(line_of(rows[-1]))
    return rows


def line_of(row: Mapping) -> str:
    """One row as text."""
    similar = f"{row['ssim']:.4f}" if row.get("ssim") is not None else "-"
    return (
        f"{row['method']:<16} {_level(row)} {row['sigma']:<4g} {row['psnr']:6.2f} dB  "
        f"(noisy {row['noisy_psnr']:.2f})  ssim {similar}  "
        f"{row['seconds_per_mp']:8.3f} s/MP"
    )


def _level(row: Mapping) -> str:
    """What the numbers under "sigma" are levels of."""
    return row.get("corruption", "sigma")


def machine() -> dict:
    """What a measured time depends on."""
    import os

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


def published(images: str, channels: int) -> list[dict]:
    """Rows of figures from the literature for a set ("BSD68", "Set12", "CBSD68", ...), see
    published.csv beside this file: same noise convention, marked as published."""
    import csv

    file = pathlib.Path(__file__).with_name("published.csv")
    kind = "gray" if channels == 1 else "colour"
    with file.open(newline="") as f:
        rows = [r for r in csv.DictReader(f) if r["set"].lower() == images.lower()]
    found = {}
    for r in rows:
        if r["colour_or_gray"] != kind or not r["sigma"].replace(".", "").isdigit():
            continue
        key = (r["method"], float(r["sigma"]))
        found.setdefault(
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
    return list(found.values())


def table(rows: Sequence[Mapping], printed: Sequence[Mapping] = ()) -> str:
    """Markdown: a line per method, PSNR / SSIM at each sigma, time, size; published ones below."""
    sigmas = sorted({r["sigma"] for r in rows})
    level = _level(rows[0])
    head = ["method", *[f"{level} {s:g}: dB / SSIM" for s in sigmas], "s/MP", "params", "kMAC/px"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    if level != "sigma":
        first = [r for r in rows if r["method"] == rows[0]["method"]]
        noisy = {r["sigma"]: f"{r['noisy_psnr']:.2f}" for r in first}
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


def figure(rows: Sequence[Mapping], path: str | pathlib.Path, title: str = "") -> None:
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


def write_json(path: str | pathlib.Path, rows: Sequence[Mapping], **about) -> None:
    """Rows and what they depend on, as committed beside an experiment."""
    text = json.dumps({**about, "machine": machine(), "rows": list(rows)}, indent=1)
    files.write_atomically(path, text + "\n")
