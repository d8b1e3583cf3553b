"""How noisy is it? An estimate of sigma from the image alone."""

import numpy as np


def estimate_sigma(x: np.ndarray, patches: int = 20000) -> float:
    """Standard deviation of the white noise in x [h, w] or [h, w, c], in x's own units.

    Chen, Zhu and Heng, "An efficient statistical method for image noise level estimation" (ICCV
    2015): the eigenvalues of the covariance of 8x8 patches are noise alone but for the first few,
    which hold the picture; the largest set of small ones whose mean is their median is the noise.
    Channels are estimated apart and their variances averaged. Within 1 (of 255) of the truth
    from sigma 15 up on most photographs; busy texture makes it too high.
    Images with a side below 16 give the median absolute deviation of diagonal differences.
    """
    x = np.asarray(x)
    x = x[..., None] if x.ndim == 2 else x
    return float(np.sqrt(np.mean([_variance(x[..., c], patches) for c in range(x.shape[-1])])))


def _variance(x: np.ndarray, patches: int) -> float:
    d = 8
    x = x if min(x.shape) >= 2 * d else x.astype(np.float64)
    if min(x.shape) < 2:
        return 0.0
    if min(x.shape) < 2 * d:
        diagonal = (x[1:, 1:] - x[1:, :-1] - x[:-1, 1:] + x[:-1, :-1]) / 2
        return float((np.median(np.abs(diagonal)) / 0.6745) ** 2)
    windows = np.lib.stride_tricks.sliding_window_view(x, (d, d))
    total = windows.shape[0] * windows.shape[1]
    pick = np.arange(total)
    if total > patches:
        pick = np.random.default_rng(0).integers(total, size=patches)
    flat = windows[pick // windows.shape[1], pick % windows.shape[1]]
    flat = flat.reshape(-1, d * d).astype(np.float64)
    values = np.sort(np.linalg.eigvalsh(np.cov(flat, rowvar=False)))[::-1]
    values = np.maximum(values, 0)
    for i in range(len(values)):
        rest = values[i:]
        mean = rest.mean()
        if np.sum(rest > mean) >= np.sum(rest < mean):
            return float(mean)
    return float(values[-1])
