"""A run on real image files: digits 0 to 2, a few of them labeled."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import fewlabels
from tests.conftest import without_figures


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Digits as PNG files of 24x16 pixels in class folders, with unlabeled and test ones."""
    root = tmp_path_factory.mktemp("export") / "my photos"
    digits = load_digits(n_class=3)
    for row, (pixels, label) in enumerate(zip(digits.images[:150], digits.target, strict=False)):
        name = "unlabeled" if row >= 60 else f"test/{label}" if row >= 30 else f"{label}"
        path = root / name / f"{row} b&w.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(pixels * 15)).resize((24, 16)).save(path)
    return root


@pytest.fixture(scope="session")
def run(photos):
    """The folder of a finished run on them."""
    options = {"steps": 40, "baseline": False, "device": "cpu", "threads": 1, "images_size": 16, "model": "small_cnn"}
    with without_figures():
        return fewlabels.fit(photos, method="fixmatch", out=photos.parent / "run", **options).path
