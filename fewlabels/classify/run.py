"""A finished run: its folder, its numbers, its classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewlabels.classify.report.words import compared_with_start, verdict
from fewlabels.classify.tables import result_table
from fewlabels.errors import UserError
from fewlabels.keys import Key
from fewlabels.models.build import build_classifier
from fewlabels.models.classifier import PARAMETERS, Classifier, load_tensors, read_card
from fewlabels.models.of_function import Backbone, as_module
from fewlabels.runs.folder import RunFolder
from fewlabels.runs.show import Show


@dataclass(frozen=True)
class Run:
    """What `fit` gives back.

    Attributes:
        path: the folder, with `report.html`, `predictions.parquet` and the rest.
        summary: the numbers, as in `summary.json`.
    """

    path: Path
    summary: dict[str, Any]

    @staticmethod
    def finished(folder: RunFolder) -> Run | None:
        """Give the run in a folder where it is finished."""
        summary = folder.read_json("summary.json")
        return None if summary is None else Run(folder.path, summary)

    @property
    def accuracy(self) -> float | None:
        """The method's accuracy on the test split, a fraction; None without a test split."""
        return self.summary["accuracy"]

    @property
    def classifier(self) -> Classifier:
        """The trained classifier, read from the folder."""
        return load(self.path)

    def show(self, show: Show) -> None:
        """Show the table and what it means."""
        show.table(result_table(self.summary))
        for line in verdict(self.summary):
            show.line(line, "bold")
        if said := compared_with_start(self.summary):
            show.line(said)
        if note := self.summary["rows"][-1]["note"]:
            show.line(f"Why it ended here: {note}.")
        for warning in self.summary["warnings"]:
            show.line(f"Warning: {warning['text']}", "yellow")
        show.line(f"report: {self.path / 'report.html'}")


def load(run: str | Path, backbone: Backbone | None = None, device: str = "cpu") -> Classifier:
    """Read the classifier of a run, in evaluation mode.

    Args:
        run: the run's folder.
        backbone: the module or function, where the run was made with one of the user's own.
        device: where to put it.

    Raises:
        UserError: there is no trained model in the folder, or it does not fit.
    """
    folder = Path(run)
    card = read_card(folder / "model.json")
    module = None if backbone is None else as_module(backbone)
    classifier = build_classifier(card, key=Key(0), backbone=module)
    load_tensors(classifier, folder / PARAMETERS)
    try:
        return classifier.to(torch.device(device)).eval()
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device}: {str(error).splitlines()[0]}") from error
