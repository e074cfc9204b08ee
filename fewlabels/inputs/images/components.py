"""Principal components of pixels: features that cost no training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.table import Labels, spread
from fewlabels.inputs.base import Provider, chunks

MOST_ROWS = 10_000  # that the components are fitted on
MOST_FITTED = 1 << 26  # bytes of pixels, likewise
COMPONENTS = 64  # pixels are reduced to so many principal components


def pixel_features(images: Provider, train: Labels) -> NDArray[np.float32]:
    """Give principal components [N, D] of pixels, fitted on training rows without their labels.

    At most `MOST_FITTED` bytes of pixels are held at once, however many images there are.
    """
    from sklearn.decomposition import PCA  # a second to import, which what makes no features need not wait for

    count, *shape = images.shape
    pixels = int(np.prod(shape))
    fitted = spread(train, min(MOST_ROWS, max(MOST_FITTED // (4 * pixels), COMPONENTS)))
    parts = min(COMPONENTS, pixels, len(fitted))
    pca = PCA(parts, random_state=0, svd_solver="randomized" if pixels > 500 else "full").fit(_flat(images, fitted))
    out = np.empty((count, parts), np.float32)
    for part in chunks(np.arange(count)):
        out[part] = pca.transform(_flat(images, part))
    return out


def _flat(images: Provider, rows: Labels) -> NDArray[np.float32]:
    flat = images.take(rows).cpu().numpy().reshape(len(rows), -1).astype(np.float32)
    flat /= 255
    return flat
