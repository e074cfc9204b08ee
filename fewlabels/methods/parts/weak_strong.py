"""Methods whose strong views learn what a weak view tells, and which pass each view takes."""

from __future__ import annotations

from torch import Tensor

from fewlabels.inputs.batch import Batch, Views
from fewlabels.methods.base import Method
from fewlabels.methods.parts.forward import Passes, features_of, logits_of
from fewlabels.models.network import Network


class WeakStrong(Method):
    """A method whose strong views learn what a weak view of the same row tells."""

    passes: Passes = "three"
    """which views share a pass through the network: all (one), labeled and strong ones (two), none (three)"""

    takes_propagated = True

    def views(self) -> Views:
        """Ask for a weak and a strong view of each unlabeled row."""
        return Views(labeled=("weak",), unlabeled=("weak", "strong"))

    def logits(self, net: Network, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Give logits of labeled [B, K], weak [M, K] (see `target_logits`) and strong views [M, K]."""
        (labeled,), (weak, strong) = batch.labeled, batch.unlabeled
        return logits_of(net, labeled, weak, strong, self.passes, batch.propagated)

    def features(self, net: Network, batch: Batch) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Give features of labeled [B, D], weak [M, D] (without gradient) and all further views, [M, D] each."""
        (labeled,), (weak, *strong) = batch.labeled, batch.unlabeled
        return features_of(net, labeled, weak, strong, self.passes)
