"""Columns of tables and axes of figures: header, number format, and whether larger is better.

A column is a label ("@model"), a config key, a metric ("test/psnr"), a field of the result
("parameters"), "compression", or the metric of a baseline ("pca:test/psnr").
"""

from typing import NamedTuple


class Column(NamedTuple):
    """How a column is shown.

    Attributes:
      header: its name in words, with the unit.
      format: a format specification of its numbers, such as ".2f".
      larger_is_better: of a metric; None for a column that is not ranked.
    """

    header: str
    format: str
    larger_is_better: bool | None = None


COLUMNS = {
    "latent_size": Column("size of h", ",.0f"),
    "model.latent": Column("model.latent", ",.0f"),
    "input_size": Column("input", ",.0f"),
    "parameters": Column("parameters", ",.0f"),
    "compression": Column("compression", ",.1f"),
    "examples_per_sec": Column("examples/s", ",.0f"),
    "steps": Column("steps", ",.0f"),
    "seconds.total": Column("time, s", ",.1f"),
    "cost.flops_per_step": Column("FLOP/step", ".3g"),
    "test/psnr": Column("PSNR, dB", ".2f", True),
    "test/ssim": Column("SSIM", ".4f", True),
    "test/ms_ssim": Column("MS-SSIM", ".4f", True),
    "test/mse": Column("MSE", ".5f", False),
    "test/mae": Column("MAE", ".5f", False),
    "test/bpp": Column("bits/pixel", ".4f", False),
    "test/loss": Column("loss", ".5g", False),
    "test/fid": Column("Frechet distance", ".2f", False),
}
BASELINES = {"pca": "PCA"}  # name in Study.baselines -> header
GLOSSARY = "size of h: all numbers of h for one image; model.latent: its channels"
_SMALLER_IS_BETTER = ("loss", "error", "distance", "bits", "nll")  # words in names of metrics
_WORDS = {"lr": "learning rate", "source": "data"}


def column_of(name: str) -> Column:
    """The column called `name`; the header of an unknown one is the last part of its name.

    Example:
      >>> [column_of(name).header for name in ("test/psnr", "pca:test/psnr", "optim.lr")]
      ['PSNR, dB', 'PCA', 'learning rate']
    """
    baseline, _, metric = name.rpartition(":")
    if baseline in BASELINES:
        return column_of(metric)._replace(header=BASELINES[baseline])
    if name in COLUMNS:
        return COLUMNS[name]
    tail = name.lstrip("@").rpartition("/" if "/" in name else ".")[2]
    larger_is_better = not any(word in tail for word in _SMALLER_IS_BETTER)
    header = _WORDS.get(tail, tail.replace("_", " "))
    return Column(header, ".4g", larger_is_better if "/" in name else None)
