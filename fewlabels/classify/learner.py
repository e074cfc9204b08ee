"""A network and the method that trains it, as the loop sees them."""

from __future__ import annotations

from torch import Tensor, nn

from fewlabels.inputs.batch import Batch
from fewlabels.methods.base import Method
from fewlabels.models.classifier import Classifier
from fewlabels.models.network import Network
from fewlabels.models.teacher import follow
from fewlabels.training.learner import Learner


class MethodLearner(Learner[Batch]):
    """What is trained to classify.

    Args:
        network: the classifier with the rule for unlabeled rows.
        method: set up for the task, on the network's device.
    """

    def __init__(self, network: Network, method: Method) -> None:
        super().__init__()
        self.network, self.method = network, method

    @property
    def classifier(self) -> Classifier:
        """What predicts in the end."""
        return self.network.classifier

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        """Return the method's losses of a batch."""
        return self.method(self.network, batch)

    def after_step(self, step: Tensor) -> None:
        """Let the averaged centers take in the head."""
        self.network.advance(step)

    def layered(self) -> nn.Module:
        """Return the backbone."""
        return self.network.classifier.backbone

    def look_at(self, averaged: MethodLearner) -> None:
        """Let methods that have a teacher learn from this one."""
        follow(self.network, averaged.network)
        follow(self.method, averaged.method)
