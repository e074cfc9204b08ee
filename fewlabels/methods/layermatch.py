"""LayerMatch (Liang et al. 2024): pseudo-labels drive the backbone and never the head."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from fewlabels.averaging.horizon import horizon
from fewlabels.config import NotNegative, Share
from fewlabels.methods.base import Method, Task
from fewlabels.methods.parts.across import mean_rows
from fewlabels.methods.parts.forward import Passes, logits_of
from fewlabels.methods.parts.losses import consistency
from fewlabels.methods.parts.output_average import OutputAverage
from fewlabels.methods.parts.thresholds import FixedThreshold, SelfAdaptiveThreshold, SoftWeight
from fewlabels.models.network import LayerRule, Network
from fewlabels.views.batch import Batch, Views


class LayerMatch(Method):
    """A threshold method in which each kind of layer uses the pseudo-labels in its own way.

    Grad-ReLU: the unlabeled loss gives no gradient to the head (W, b) and flows through it to the features.
    Avg-Clustering: features of unlabeled rows are drawn to averaged class centers, or to averaged outputs.

    ::

        f, f_w, f_s = features of weak(x), weak(u), strong(u)            [B, D], [M, D], [M, D]
        W_u = sg(V) + head_scale * (W - sg(W)), V = W or its average     [K, D]; the bias likewise
        z   = W f + b                                                   [B, K]
        p   = softmax(W_u f_w + b_u), or its average over each row's visits; y^ = argmax p   [M, K], [M]
        z_s = W_u f_s + b_u                                             [M, K]
        row weight = of the chosen threshold                            [M]
        loss = mean CE(z, y) + weight * mean(row weight * CE(z_s, sg y^))

    With head_scale 1, average none and a fixed threshold it is FixMatch.
    """

    threshold: Literal["fixed", "self_adaptive", "soft"] = "self_adaptive"
    """which rows count: as in FixMatch, FreeMatch, or SoftMatch (without its alignment)"""
    confidence: Share = 0.95
    """a row counts from this probability of its target on (fixed threshold)"""
    head_scale: Share = 0.0
    """factor on the unlabeled gradient of the head: 0 is Grad-ReLU, 1 the usual"""
    average: Literal["none", "centers", "outputs", "both"] = "none"
    """what is averaged over time: the class centers, the outputs that make the targets, or both"""
    memory: NotNegative = 1000.0
    """steps (of outputs: visits of a row) that averages remember in a run of the paper's length"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""
    passes: Passes = "three"
    """which views share a pass through the network: all (one), labeled and strong (two), none (three)"""

    def setup(self, task: Task) -> None:
        """Make the threshold and the averaged outputs."""
        memory = horizon(self.memory, task.steps)
        if self.threshold == "fixed":
            self.row_weight: FixedThreshold | SelfAdaptiveThreshold | SoftWeight = FixedThreshold(self.confidence)
        elif self.threshold == "self_adaptive":
            self.row_weight = SelfAdaptiveThreshold(task.classes, memory)
        else:
            self.row_weight = SoftWeight(task.classes, memory)
        averaged = self.average in ("outputs", "both")
        self.outputs = OutputAverage(task.rows, task.classes, memory) if averaged else None

    def layer_rule(self, task: Task) -> LayerRule:
        """Scale the head's unlabeled gradient, and average its centers where asked."""
        averaged = self.average in ("centers", "both")
        return LayerRule(self.head_scale, horizon(self.memory, task.steps) if averaged else None)

    def views(self) -> Views:
        """Ask for a weak and a strong view of each unlabeled row."""
        return Views(labeled=("weak",), unlabeled=("weak", "strong"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factor) and `kept`."""
        (labeled,), (weak, strong) = batch.labeled, batch.unlabeled
        z, z_w, z_s = logits_of(net, labeled, weak, strong, self.passes)
        p = z_w.softmax(1)
        if self.outputs is not None:
            p = self.outputs(p, batch.rows)
        row_weight = self.row_weight(p, batch.step)

        labeled_loss = F.cross_entropy(z, batch.labels)
        unlabeled_loss = consistency(z_s, p.argmax(1), row_weight)
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "kept": mean_rows(row_weight),
        }
