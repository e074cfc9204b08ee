"""What a good user of timm and scikit-learn would write for few labels, tuned to win: the side that we compare with.

The same backbone as ours, as its authors evaluate it (timm's transform: resize, center crop), averaged over the image
and its mirror image, and each classifier's numbers chosen by stratified cross-validation on the labels. It sees the
pool and the labels, and is asked once for the test rows. What learns from the pool works on 128 principal components:
it is fitted 75 times. All is done on the network's features and, since we also use these, on them with the pooled
outputs of two earlier stages beside them; rows have unit length, less the mean, and unit length again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize
from sklearn.semi_supervised import LabelPropagation, LabelSpreading, SelfTrainingClassifier

from fewlabels.models.embedded import EMBEDDED, load_embedded

COMPONENTS = 128
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def features_of(images: list[Image.Image], name: str = "efficientnet_lite0") -> Floats:
    """Embed images by timm's own transform, 8 at a time, channels last: the features, then two earlier stages."""
    model = timm.create_model(EMBEDDED[name].timm_name, num_classes=0)
    load_embedded(name, model)
    model = model.eval().to(memory_format=torch.channels_last)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    out: list[Floats] = []

    def embed(batch: torch.Tensor) -> torch.Tensor:
        last, stages = model.forward_intermediates(batch.contiguous(memory_format=torch.channels_last), indices=[2, 3])
        return torch.cat([model.forward_head(last), *(stage.mean((2, 3)) for stage in stages)], 1)

    with torch.inference_mode():
        for start in range(0, len(images), 8):
            batch = torch.stack([transform(image.convert("RGB")) for image in images[start : start + 8]])
            out.append(((embed(batch) + embed(batch.flip(3))) / 2).numpy())
    return np.concatenate(out)


def spaces_of(features: Floats) -> dict[str, Floats]:
    """Return rows in the spaces that are tried, from what `features_of` returned."""
    parts = np.split(features, [1280, 1320], axis=1)
    return {"": _centered(parts[0]), " and stages": np.hstack([_centered(part) for part in parts])}


def _centered(x: Floats) -> Floats:
    x = np.asarray(normalize(x), np.float32)
    return np.asarray(normalize(x - x.mean(0)), np.float32)


def pixels_of(images: list[Image.Image]) -> Floats:
    """Return images of one size as their pixels; unit length."""
    return _centered(np.stack([np.asarray(image, np.float32).ravel() for image in images]))


def rows(x: Floats, y: Ints, labeled: Ints, unlabeled: Ints, test: Ints) -> dict[str, Ints]:
    """Return the classes of the test rows by each classifier; y is read at the labeled rows alone."""
    folds = min(5, int(np.bincount(y[labeled])[np.unique(y[labeled])].min()))
    pool = np.concatenate([labeled, unlabeled])
    z = PCA(min(COMPONENTS, len(pool), x.shape[1]), random_state=0).fit(x[pool]).transform(x)
    given = np.concatenate([y[labeled], np.full(len(unlabeled), -1)])

    def linear(c: float) -> LogisticRegression:
        return LogisticRegression(C=c, max_iter=2000)

    def best(make: Callable[..., Any], grid: dict[str, list[Any]]) -> Any:
        if folds < 2:
            return make(**{name: values[0] for name, values in grid.items()})
        search = GridSearchCV(make(), grid, cv=StratifiedKFold(folds, shuffle=True, random_state=0))
        return make(**search.fit(x[labeled], y[labeled]).best_params_)

    def by_labels_left_out(make: Callable[[Any], Any], values: list[Any]) -> Any:
        """Choose a number of a classifier that learns from the pool, by labels that it is left without."""
        if folds < 2:
            return values[len(values) // 2]
        parts = list(StratifiedKFold(folds, shuffle=True, random_state=0).split(x[labeled], y[labeled]))

        def score(value: Any) -> float:
            right = []
            for _, part in parts:
                without = given.copy()
                without[part] = -1
                said = make(value).fit(z[pool], without).predict(z[labeled[part]])
                right += (said == y[labeled[part]]).tolist()
            return float(np.mean(right))

        return max(values, key=score)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        logistic = best(LogisticRegression, {"C": [10.0, 1.0, 100.0, 1000.0], "max_iter": [2000]})
        neighbors = best(KNeighborsClassifier, {"n_neighbors": [1, 3, 5, 9], "metric": ["cosine"]})

        def spreading(value: tuple[int, float]) -> Any:
            return LabelSpreading(kernel="knn", n_neighbors=value[0], alpha=value[1], max_iter=200)

        def propagating(value: int) -> Any:
            return LabelPropagation(kernel="knn", n_neighbors=value, max_iter=2000)

        def training(value: float) -> Any:
            return SelfTrainingClassifier(linear(logistic.C), threshold=value)

        made = {
            "logistic regression": logistic.fit(x[labeled], y[labeled]),
            "nearest neighbors": neighbors.fit(x[labeled], y[labeled]),
            "LabelSpreading": spreading(
                by_labels_left_out(spreading, [(k, a) for k in (5, 10, 20) for a in (0.2, 0.5, 0.8)])
            ).fit(z[pool], given),
            "LabelPropagation": propagating(by_labels_left_out(propagating, [5, 10, 20])).fit(z[pool], given),
            "SelfTraining": training(by_labels_left_out(training, [0.5, 0.7, 0.9])).fit(z[pool], given),
        }
    asked = {
        name: z[test] if name in ("LabelSpreading", "LabelPropagation", "SelfTraining") else x[test] for name in made
    }
    found = {name: np.asarray(model.predict(asked[name]), np.int64) for name, model in made.items()}
    spread = LogisticRegression(C=100.0, max_iter=2000).fit(x[pool], made["LabelSpreading"].transduction_)
    return found | {"logistic regression on LabelSpreading": np.asarray(spread.predict(x[test]), np.int64)}
