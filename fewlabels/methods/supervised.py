"""Labels only: what every other method has to beat."""

from __future__ import annotations

from torch import Tensor

from fewlabels.inputs.batch import Batch
from fewlabels.methods.base import Method
from fewlabels.models.network import Network


class Supervised(Method):
    """Cross-entropy on weak views of the labeled rows; the unlabeled ones are not looked at.

    ::

        z = logits(weak(x))                      [B, K]
        loss = mean CE(z, y)
    """

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`."""
        (weak,) = batch.labeled
        return {"loss": self.supervise(net.logits(net.features(weak)), batch.labels)}
