"""The labeled rows as a reference: which of them speak for a prediction, what is like none, and which contradict."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fewlabels.classify.baselines import Features
from fewlabels.data.table import UNLABELED, Labels, spread
from fewlabels.errors import UserError
from fewlabels.files import replace_file

Basis: TypeAlias = Literal["held out", "unlabeled", "labeled"]

NAME = "reference.safetensors"
NEIGHBORS = 3  # labeled rows that speak for a prediction
VOTERS = 10  # at most, that say whether a label is suspect
MOST = 2048  # labeled rows that are kept, evenly of each class
FLAGGED = 0.05  # share of the rows of known classes that the cutoff flags by mistake, as far as it can be known
SURE = 0.8  # probability from which on an unlabeled row passes for one of a known class
SHRUNK = 0.3  # part of the features' covariance that is taken as the same in all directions
_FITTED = 10_000  # rows for the covariance and for the cutoff
_FEWEST = 20  # rows for a cutoff
_FORMAT = 1
_WORDS = "reference"
_PART = 1 << 22  # similarities that are held at once


class Neighbors(NamedTuple):
    """The labeled rows most alike, the most alike first.

    Attributes:
        places: int64 [m, k], in the reference.
        similarity: float32 [m, k], cosines; -inf for a row itself, which comes last.
    """

    places: Labels
    similarity: NDArray[np.float32]

    @property
    def strangeness(self) -> NDArray[np.float32]:
        """Give 1 minus the mean similarity [m]: 0 for a copy of labeled rows, 2 at most."""
        seen = np.isfinite(self.similarity)
        return 1 - np.where(seen, self.similarity, 0).sum(1) / np.maximum(seen.sum(1), 1)


@dataclass(frozen=True, eq=False)
class Reference:
    """The labeled rows by their features, and from which distance on a row is like none of them.

    A row's strangeness is its distance to the nearest labeled rows (Sun et al. 2022), as 1 minus the cosine of
    features from which the mean of all training rows is taken, and whose covariance over these rows is made one
    (whitened), shrunk by `SHRUNK`: directions that the classes do not use count as much as those they do.

    It is a hint. Measured on small networks trained from scratch, a tenth of the unlabeled images being of no known
    class (benchmarks/results/unknown.json, seeds 0 to 2, images that the run has not seen):

    ::

        setting                                   strange found  known flagged  area under the ROC curve
        digits, 4 labels a class                       56 %           5 %                  .91
        digits, 10 labels a class                      70 %           5 %                  .96
        digits, 60 labels a class, held out            94 %           4 %                  .99
        Fashion-MNIST, 10 labels a class               52 %           6 %                  .82
        trashnet, photos of other things               26 %           5 %                  .81
        trashnet, a kind of trash without labels       10 %           8 %                  .59

    Where nothing is strange, 8 % are flagged all the same (digits, 10 labels a class). A network that hardly tells its
    own classes apart, as that of trashnet, cannot tell a further one.

    Attributes:
        mean: float32 [D].
        whiten: float32 [D, D], applied after the mean is taken away.
        features: float32 [n, D], of the labeled rows, moved so and of length 1.
        labels: int64 [n].
        names: of the rows [n].
        cutoff: of the strangeness.
        basis: the rows that the cutoff comes from; see `make_reference`.
    """

    mean: Features
    whiten: Features
    features: Features
    labels: Labels
    names: tuple[str, ...]
    cutoff: float
    basis: Basis

    def neighbors(self, features: Features, k: int = NEIGHBORS, own: Labels | None = None) -> Neighbors:
        """Find the labeled rows most alike.

        Args:
            features: [m, D], as the network gives them.
            k: how many; at most n are given.
            own: int64 [m], the place of each row in the reference, -1 for none: a row is no neighbor of itself.
        """
        k = min(k, len(self.labels))
        places = np.empty((len(features), k), np.int64)
        similarity = np.empty((len(features), k), np.float32)
        size = max(_PART // max(len(self.labels), features.shape[1]), 1)
        for start in range(0, len(features), size):
            part = slice(start, start + size)
            alike = _moved(features[part], self.mean, self.whiten) @ self.features.T
            if own is not None:
                at = np.flatnonzero(own[part] >= 0)
                alike[at, own[part][at]] = -np.inf
            best = np.argpartition(-alike, k - 1, axis=1)[:, :k]
            order = np.argsort(-np.take_along_axis(alike, best, 1), axis=1, kind="stable")
            places[part] = np.take_along_axis(best, order, 1)
            similarity[part] = np.take_along_axis(alike, places[part], 1)
        return Neighbors(places, similarity)

    def strangeness(self, features: Features) -> NDArray[np.float32]:
        """Say how far rows [m, D] are from the labeled ones [m]."""
        return self.neighbors(features).strangeness

    def unknown(self, features: Features) -> NDArray[np.bool_]:
        """Tell which rows [m, D] are unlike every class: beyond the cutoff."""
        return self.strangeness(features) > self.cutoff

    def places_of(self, names: Sequence[str]) -> Labels:
        """Give where rows of these names stand in the reference [m]; -1 for those that do not."""
        places = {name: place for place, name in enumerate(self.names)}
        return np.array([places.get(name, -1) for name in names], np.int64)

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in ("mean", "whiten", "features", "labels")}
        tensors["threshold"] = np.array(self.cutoff)
        words = json.dumps({"format": _FORMAT, "basis": self.basis, "names": self.names})
        # One entry: several are written in no fixed order, and the same run is to give the same bytes.
        replace_file(path, lambda aside: save_file(tensors, aside, {_WORDS: words}))

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read what `save` wrote.

        Raises:
            UserError: it is no such file, damaged, or of a newer format.
        """
        try:
            with safe_open(path, "np") as file:
                words = json.loads((file.metadata() or {})[_WORDS])
                if words["format"] > _FORMAT:
                    raise UserError(f"{path} has format {words['format']}; install a newer fewlabels")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            cutoff, basis = float(tensors.pop("threshold")), words["basis"]
            return cls(**tensors, names=tuple(words["names"]), cutoff=cutoff, basis=basis)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is damaged: {error}. Remove summary.json beside it and give the run's command again: that "
                "writes the outputs anew, and trains nothing again."
            ) from error


def make_reference(
    features: Features,
    probabilities: NDArray[np.float32],
    labels: Labels,
    names: Sequence[str],
    *,
    labeled: Labels,
    unlabeled: Labels,
    held_out: Labels,
) -> Reference:
    """Make the reference of a run, and its cutoff.

    The cutoff is to flag `FLAGGED` of the rows of known classes. Labeled rows that were trained on lie too near to
    each other to say where that is. So it comes from

    - labeled rows that were held out from training, where there are `_FEWEST`: a new image of a known class is flagged
      with a probability of `FLAGGED` at most, if it is drawn as these were (the rank of split conformal prediction);
    - else the unlabeled rows with a probability of `SURE` or more, as stand-ins. Strange ones among them raise the
      cutoff, and known ones that the network is unsure of lie beyond it;
    - else, where there are no unlabeled rows either, the labeled ones, each as if it were none of the reference.

    Args:
        features: [N, D], of all rows of the run.
        probabilities: [N, K].
        labels: int64 [N], -1 unlabeled; of rows that are neither labeled nor held out they are not looked at.
        names: of the rows [N].
        labeled, unlabeled, held_out: row numbers; test rows are in none of them.
    """
    kept = _evenly(labeled, labels)
    mean, whiten = _whitening(features[spread(np.concatenate([labeled, unlabeled, held_out]), _FITTED)])
    reference = Reference(
        mean=mean,
        whiten=whiten,
        features=_moved(features[kept], mean, whiten),
        labels=labels[kept],
        names=_some(names, kept),
        cutoff=math.inf,
        basis="labeled",
    )
    rows, basis = _rows_to_go_by(probabilities, kept, unlabeled, held_out)
    own = np.arange(len(kept)) if basis == "labeled" else None
    strangeness = reference.neighbors(features[rows], own=own).strangeness
    return replace(reference, cutoff=_beyond(strangeness), basis=basis)


def _some(names: Sequence[str], rows: Labels) -> tuple[str, ...]:
    return tuple(names[row] for row in cast(list[int], rows.tolist()))


def _evenly(rows: Labels, labels: Labels) -> Labels:
    """Take at most `MOST` rows, evenly of each class."""
    classes = np.unique(labels[rows])
    most = max(MOST // len(classes), 1)
    return np.sort(np.concatenate([spread(rows[labels[rows] == k], most) for k in classes]))


def _whitening(x: Features) -> tuple[Features, Features]:
    """Give the mean [D] and what makes the shrunk covariance one [D, D], of features [n, D]."""
    mean = x.mean(0, dtype=np.float64)
    covariance = (x - mean).T @ (x - mean) / len(x)
    one = np.eye(len(mean))
    size = np.trace(covariance) / len(mean) or 1.0  # rows that are all alike have none
    root = np.linalg.cholesky((1 - SHRUNK) * covariance / size + SHRUNK * one)
    return mean.astype(np.float32), np.linalg.solve(root, one).T.astype(np.float32)


def _rows_to_go_by(
    probabilities: NDArray[np.float32], labeled: Labels, unlabeled: Labels, held_out: Labels
) -> tuple[Labels, Basis]:
    """Choose the rows that the cutoff comes from."""
    if len(held_out) >= _FEWEST:
        return held_out, "held out"
    if len(unlabeled) >= _FEWEST:
        sure = unlabeled[probabilities[unlabeled].max(1) >= SURE]
        return spread(sure if len(sure) >= _FEWEST else unlabeled, _FITTED), "unlabeled"
    return labeled, "labeled"


def _moved(features: Features, mean: Features, whiten: Features) -> Features:
    moved = (features - mean) @ whiten
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), np.float32(1e-12))


def _beyond(strangeness: NDArray[np.float32]) -> float:
    """Give what a further value exceeds with a probability of `FLAGGED` at most; the largest where they are few."""
    rank = math.ceil((1 - FLAGGED) * (len(strangeness) + 1))
    return float(np.sort(strangeness)[min(rank, len(strangeness)) - 1])


class Suspects(NamedTuple):
    """Rows whose class is contradicted, int64, and the class that most of their neighbors have, int64."""

    rows: Labels
    instead: Labels


def suspects(
    reference: Reference,
    features: Features,
    probabilities: NDArray[np.float32],
    labels: Labels,
    names: Sequence[str],
) -> Suspects:
    """Name the rows whose class the labeled rows most alike contradict, the surest suspicion first.

    A row's class is its given label, or what it is predicted to be with a probability of `SURE` or more. It is
    suspect where most of its neighbors are of other classes. The more of them, the surer; then the more alike the
    nearest of another class, compared with the nearest of its own. As many are asked as the smallest class has, so
    that a class can be in the majority; `VOTERS` at most.

    Args:
        reference: of the run.
        features: [N, D].
        probabilities: [N, K].
        labels: int64 [N], -1 unlabeled.
        names: of the rows [N]: a labeled row is no neighbor of itself.
    """
    given = labels != UNLABELED
    asked = np.flatnonzero(given | (probabilities.max(1) >= SURE))
    own = reference.places_of(_some(names, asked))
    counts = np.bincount(reference.labels, minlength=probabilities.shape[1])
    classes = np.where(given, labels, probabilities.argmax(1))[asked]
    judged = counts[classes] > (own >= 0)  # of a class's only labeled row no other could speak for it
    asked, own, classes = asked[judged], own[judged], classes[judged]
    found = reference.neighbors(features[asked], min(max(counts[counts > 0].min() - 1, 1), VOTERS), own)
    same = reference.labels[found.places] == classes[:, None]
    against = 1 - same.mean(1)
    margin = _nearest(~same, found.similarity) - _nearest(same, found.similarity)
    order = np.lexsort((-margin, -against))
    suspect = order[against[order] > 0.5]
    votes = [np.bincount(reference.labels[places]).argmax() for places in found.places[suspect]]
    return Suspects(asked[suspect], np.array(votes, np.int64))


def _nearest(which: NDArray[np.bool_], similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the largest similarity [m] of those meant [m, k]; -1 where there is none."""
    return np.where(which, similarity, -1).max(1)
