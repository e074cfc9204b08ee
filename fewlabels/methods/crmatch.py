"""CRMatch (Fan et al. 2022): FixMatch whose features know the strong view from the weak one, and rotations."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.config import Fraction, NotNegative
from fewlabels.inputs.batch import Batch, Views
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.forward import features_of, learning_features, target_logits
from fewlabels.methods.parts.losses import consistency, mean_loss, seen
from fewlabels.methods.parts.rotation import turned
from fewlabels.methods.parts.thresholds import at_least
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network


class CRMatch(WeakStrong):
    """Predictions do not change between the views, but features may: they are pushed apart where a row counts.

    ::

        z   = logits(weak(x))                                           [B, K]
        p   = softmax(logits(weak(u))), y^ = argmax p                    [M, K], [M]
        row weight = 1[max p >= threshold]                              [M]
        a, b = projection(features(weak(u))), projection(features(strong(u)))   [M, D]
        L_d = mean(row weight * max(0, cosine(sg a, b)))
        L_r = mean CE(rotation head(features(weak'(u) turned by r)), r)     r in 0..3 quarter turns
        L_u = mean(row weight * CE(logits(strong(u)), sg y^))
        loss = mean CE(z, y) + weight * L_u + distance * L_d + rotation * L_r

    The paper projects the last feature map; here it is its mean, the features, which every backbone has. In a popular
    library's joint pass a gets a gradient too (`weak_learns`; here by a pass of its own), and the rotations are all
    four of other unlabeled images, as many as labeled ones. What is turned always has a pass of its own.
    """

    threshold: Fraction = 0.95
    """a row counts from this probability of its target on"""
    weight: NotNegative = 1.0
    """factor on the loss of the targets"""
    distance: NotNegative = 1.0
    """factor on the loss that pushes the features of the two views apart"""
    rotation: NotNegative = 1.0
    """factor on the loss of the rotations; 0 leaves them out"""
    weak_learns: bool = False
    """whether features and projection learn from the distance by the weak view too, in a pass more"""

    def setup(self, sizes: Sizes) -> None:
        """Make the projection and the rotation head."""
        self.projection = nn.Linear(sizes.features, sizes.features)
        self.turn_head = nn.Sequential(
            nn.Linear(sizes.features, sizes.features), nn.ReLU(), nn.Linear(sizes.features, 4)
        )

    def views(self) -> Views:
        """Ask for a weak and a strong view of each unlabeled row, and another weak one to turn."""
        return Views(labeled=("weak",), unlabeled=("weak", "strong", "weak") if self.rotation else ("weak", "strong"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, its parts (without their factors) and `kept`."""
        (labeled,), (weak, strong, *other) = batch.labeled, batch.unlabeled
        f, f_w, (f_s,) = features_of(net, labeled, weak, [strong], self.passes)
        p, z_s = target_logits(net, f_w, batch.propagated).softmax(1), net.unlabeled_logits(f_s)
        target, row_weight = p.argmax(1), at_least(p, self.threshold)

        labeled_loss = self.supervise(net.logits(f), batch.labels)
        unlabeled_loss = consistency(z_s, target, row_weight)
        a = self.projection(learning_features(net, weak)[0]) if self.weak_learns else self.projection(f_w).detach()
        alike = F.cosine_similarity(a, self.projection(f_s), dim=1)
        distance_loss = mean_loss(row_weight * alike.clamp(min=0))
        rotation_loss = self._rotation_loss(net, batch, other[0]) if other else labeled_loss.new_zeros(())
        own = self.distance * distance_loss + self.rotation * rotation_loss
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss + own,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "distance_loss": distance_loss,
            "rotation_loss": rotation_loss,
            **seen(z_s, target, row_weight),
        }

    def _rotation_loss(self, net: Network, batch: Batch, images: Tensor) -> Tensor:
        images, turns = turned(batch.key, images)
        (features,) = learning_features(net, images)
        return mean_loss(F.cross_entropy(self.turn_head(features), turns, reduction="none"))
