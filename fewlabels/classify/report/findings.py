"""What a run found out about its rows, as its report shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.classify.reference import Suspects
from fewlabels.data.table import Labels, Table
from fewlabels.inputs.base import Inputs, Provider


@dataclass(frozen=True, eq=False)
class Findings:
    """What a run found out about its rows; what is said of all of them in numbers is in its summary.

    Attributes:
        table: the rows.
        inputs: the kind of the rows.
        store: of the rows, as the network saw them.
        probabilities: float32 [N, K], calibrated where the run could.
        raw: float32 [N, K], as the network gives them.
        unknown: bool [N], rows that are unlike every class of the labeled set.
        suspects: rows whose given label or surely predicted class the labeled rows most alike contradict, the surest
            suspicion first, with the class that these have.
        next: int64, the rows whose labels would help most, the best first.
    """

    table: Table
    inputs: Inputs[Any]
    store: Provider
    probabilities: NDArray[np.float32]
    raw: NDArray[np.float32]
    unknown: NDArray[np.bool_]
    suspects: Suspects
    next: Labels

    @property
    def things(self) -> str:
        """What the rows are."""
        return self.inputs.many
