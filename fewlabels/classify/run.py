"""A finished run to classify: its numbers and its classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fewlabels.errors import UserError
from fewlabels.keys import Key
from fewlabels.models.build import build_classifier
from fewlabels.models.classifier import PARAMETERS, Classifier, load_tensors, read_card
from fewlabels.models.of_function import Backbone, as_module
from fewlabels.runs.run import Run


@dataclass(frozen=True)
class ClassifierRun(Run):
    """What `fewlabels.fit` returns: `path`, `summary`, and the classifier."""

    @property
    def accuracy(self) -> float | None:
        """The accuracy of the classifier on the test split, a fraction; None without a test split."""
        return None if self.metrics is None else self.metrics["accuracy"]

    @property
    def classifier(self) -> Classifier:
        """The trained classifier, read from the folder."""
        return load(self.path)


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
