"""Scatter plots of latents, projected to two dimensions."""

import pathlib

import numpy as np
from jaxtyping import Float, Int

from aejax.errors import UserError
from aejax.nets.linear import principal_components


def project(z: Float[np.ndarray, " n *s"], method: str = "pca", seed: int = 0) -> np.ndarray:
    """Projects latents to two dimensions, [n, 2].

    Args:
      method: "pca" (the first two principal components), or "umap" (McInnes et al. 2018, arXiv
        1802.03426), if it is installed.
      seed: of UMAP.

    Raises:
      UserError: unknown method, or UMAP is not installed.
    """
    flat = np.asarray(z, np.float64).reshape(len(z), -1)
    if method == "pca":
        mean, axes = principal_components(flat, 2)
        # the sign of an axis is arbitrary: its largest entry is made positive
        axes = axes * np.sign(axes[np.abs(axes).argmax(0), [0, 1]])
        return (flat - mean) @ axes
    if method != "umap":
        raise UserError(f'latent map "{method}": use pca or umap')
    try:
        import umap
    except ImportError:
        raise UserError("umap is not installed; pip install umap-learn, or use pca") from None
    return umap.UMAP(random_state=seed).fit_transform(flat)


def draw(
    path: str | pathlib.Path,
    z: Float[np.ndarray, " n *s"],
    labels: Int[np.ndarray, " n"] | None = None,
    method: str = "pca",
    title: str = "",
) -> None:
    """Writes a scatter plot of `project(z)`, coloured by label; the suffix of path is the
    format."""
    from matplotlib.figure import Figure

    points = project(z, method)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    if labels is None:
        axes.scatter(*points.T, s=4, alpha=0.6)
    else:
        labels = np.asarray(labels)
        for k in np.unique(labels):
            axes.scatter(*points[labels == k].T, s=4, alpha=0.6, label=str(k))
        axes.legend(markerscale=3, fontsize=8, frameon=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title or f"h, {method}")
    figure.savefig(path, dpi=120)
