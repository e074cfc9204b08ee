"""LayerMatch (Liang et al. 2024): pseudo-labels drive the backbone and never the head."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from fewlabels.averaging.horizon import horizon
from fewlabels.config import Fraction, NotNegative
from fewlabels.inputs.batch import Batch
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.losses import consistency, seen
from fewlabels.methods.parts.output_average import OutputAverage
from fewlabels.methods.parts.thresholds import FixedThreshold, SelfAdaptiveThreshold, SoftWeight
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.layers import PRESETS
from fewlabels.models.network import LayerRule, Network


class LayerMatch(WeakStrong):
    """A threshold method in which each kind of layer uses the pseudo-labels in its own way.

    Grad-ReLU (policy): the unlabeled loss gives no gradient to the head (W, b) and flows through it to the features.
    Avg-Clustering (center memory): features of unlabeled rows are drawn to averaged class centers.
    Both are the network's rule for unlabeled rows, so every other method can have them too.

    ::

        f, f_w, f_s = features of weak(x), weak(u), strong(u)            [B, D], [M, D], [M, D]
        W_u = sg(V) + s * (W - sg(W)), V = W or its average, s = 0      [K, D]; the bias likewise
        z   = W f + b                                                   [B, K]
        p   = softmax(W_u f_w + b_u), or its average over each row's visits; y^ = argmax p   [M, K], [M]
        z_s = W_u f_s + b_u                                             [M, K]
        row weight = of the chosen threshold                            [M]
        loss = mean CE(z, y) + weight * mean(row weight * CE(z_s, sg y^))

    With a fixed threshold and the policy `all` it is FixMatch.
    """

    threshold: Literal["fixed", "self_adaptive", "soft"] = "self_adaptive"
    """which rows count: as in FixMatch, FreeMatch, or SoftMatch (without its alignment)"""
    confidence: Fraction = 0.95
    """a row counts from this probability of its target on (fixed threshold)"""
    outputs: Literal["now", "averaged"] = "now"
    """what makes the targets: the network's predictions, or their average over each row's visits"""
    memory: NotNegative = 1000.0
    """steps (of outputs: visits of a row) that averages remember in a run of the paper's length"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""

    def setup(self, sizes: Sizes) -> None:
        """Make the threshold and the averaged outputs."""
        memory = horizon(self.memory, sizes.steps)
        if self.threshold == "fixed":
            self.row_weight: FixedThreshold | SelfAdaptiveThreshold | SoftWeight = FixedThreshold(self.confidence)
        elif self.threshold == "self_adaptive":
            self.row_weight = SelfAdaptiveThreshold(sizes.classes, memory)
        else:
            self.row_weight = SoftWeight(sizes.classes, memory)
        averaged = self.outputs == "averaged"
        self.average = OutputAverage(sizes.rows, sizes.classes, memory) if averaged else None

    def layer_rule(self) -> LayerRule:
        """Keep pseudo-labels from the head."""
        return LayerRule(policy=PRESETS["grad_relu"])

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factor) and `kept`."""
        z, z_w, z_s = self.logits(net, batch)
        p = z_w.softmax(1)
        if self.average is not None:
            p = self.average(p, batch.rows)
        target, row_weight = p.argmax(1), self.row_weight(p, batch.step)

        labeled_loss = self.supervise(z, batch.labels)
        unlabeled_loss = consistency(z_s, target, row_weight)
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            **seen(z_s, target, row_weight),
        }
