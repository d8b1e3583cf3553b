"""Where latents lie, in two dimensions."""

from typing import Any

import numpy as np
from jaxtyping import Float

from aejax.errors import UserError


def project(z: Float[np.ndarray, "n *s"], method: str = "pca", seed: int = 0) -> np.ndarray:
    """z -> [n, 2]: the two directions of most variance, or UMAP if it is installed.

    Raises:
      UserError: unknown method, or UMAP without its package.
    """
    flat = np.asarray(z, np.float64).reshape(len(z), -1)
    if method == "pca":
        centred = flat - flat.mean(0)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        # the sign of an axis is arbitrary: its largest entry is made positive
        axes = axes[:2] * np.sign(axes[:2][[0, 1], np.abs(axes[:2]).argmax(1)])[:, None]
        return centred @ axes.T
    if method != "umap":
        raise UserError(f'latent map "{method}": pca or umap')
    try:
        import umap
    except ImportError:
        raise UserError("umap is not installed; pip install umap-learn, or take pca") from None
    return umap.UMAP(random_state=seed).fit_transform(flat)


def draw(
    path: Any,
    z: Float[np.ndarray, "n *s"],
    labels: Any = None,
    method: str = "pca",
    title: str = "",
) -> None:
    """Writes a scatter plot of `project(z)`, coloured by label, as PNG or whatever path says."""
    from matplotlib.figure import Figure

    at = project(z, method)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    if labels is None:
        axes.scatter(*at.T, s=4, alpha=0.6)
    else:
        labels = np.asarray(labels)
        for k in np.unique(labels):
            axes.scatter(*at[labels == k].T, s=4, alpha=0.6, label=str(k))
        axes.legend(markerscale=3, fontsize=8, frameon=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title or f"h, {method}")
    figure.savefig(path, dpi=120)
