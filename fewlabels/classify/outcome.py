"""What the trainings of a run, and the baselines that need none, come to: the rows of its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewlabels.classify.metrics import SUPERVISED as SUPERVISED
from fewlabels.classify.metrics import metrics_of
from fewlabels.classify.preparation import Preparation
from fewlabels.data.table import Labels
from fewlabels.models.classifier import Classifier

Kind: TypeAlias = Literal["training_free", "supervised", "method"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """One row of the table that a run ends with, and what is known of the network behind it.

    Attributes:
        name: supervised, that of a training-free baseline, or the method's.
        label: how the table names it.
        kind: whether a method was trained, the supervised baseline, or nothing.
        test, hidden: metrics by name, on the test split and on hidden labels; None where there are none.
        seconds: of work.
        added: accuracy added to that of the step before it; None where it is no step, or not known.
        steps: of the training.
        on_features: whether it was trained on features of a backbone, and not on the rows.
        predicted: classes of the test rows, by a training-free baseline.
        classifier: trained; None where nothing was.
        features, logits: of all rows by the classifier, [N, D] and [N, K].
        unseen, unseen_logits: labeled rows, and their logits by networks that were not trained on them.
    """

    name: str
    label: str
    kind: Kind
    test: Mapping[str, float] | None
    hidden: Mapping[str, float] | None
    seconds: float
    added: float | None = None
    steps: int = 0
    on_features: bool = False
    predicted: Sequence[int] = ()
    classifier: Classifier | None = None
    features: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    logits: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    unseen: Labels = field(default_factory=lambda: np.zeros(0, np.int64))
    unseen_logits: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @property
    def row(self) -> dict[str, Any]:
        """What the summary has of it."""
        names = ("name", "label", "kind", "test", "hidden", "seconds", "added", "on_features")
        return {name: getattr(self, name) for name in names}

    def right_on(self, rows: Labels, labels: Labels) -> NDArray[np.float64]:
        """Tell for each of these rows, which are among `unseen`, whether it was judged rightly: 1 or 0, [n].

        Args:
            rows: in ascending order.
            labels: of all rows.
        """
        order = np.argsort(self.unseen)
        places = order[np.searchsorted(self.unseen, rows, sorter=order)]
        return (self.unseen_logits[places].argmax(1) == labels[rows]).astype(np.float64)

    @property
    def reached(self) -> float | None:
        """The accuracy that it is compared with others by; None where none is known."""
        known = self.hidden if self.test is None else self.test
        return None if known is None else known["accuracy"]


Metrics: TypeAlias = Mapping[str, float] | None


def scores(preparation: Preparation, predicted: Labels) -> tuple[Metrics, Metrics]:
    """Return the metrics of predictions [N] of all rows, on the test split and on hidden labels."""
    table, test, hidden = preparation.table, preparation.test, preparation.hidden
    return metrics_of(predicted[test], table.labels[test]), metrics_of(predicted[hidden], table.truth[hidden])
