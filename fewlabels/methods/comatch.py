"""CoMatch (Li et al. 2021): targets smooth out over neighbors, and images with like targets get like embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.averaging.horizon import horizon
from fewlabels.config import Count, Fraction, NotNegative, Positive
from fewlabels.inputs.batch import Batch, Views
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.banks import RecentBank
from fewlabels.methods.parts.forward import target_logits
from fewlabels.methods.parts.graph import contrast, target_graph
from fewlabels.methods.parts.heads import Projector
from fewlabels.methods.parts.losses import consistency, seen
from fewlabels.methods.parts.marginals import RecentMean
from fewlabels.methods.parts.targets import align, one_hot
from fewlabels.methods.parts.thresholds import at_least
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network


class CoMatch(WeakStrong):
    """Embeddings refine the targets, and the targets say which embeddings belong together.

    ::

        p   = align(softmax(logits(weak(u))), uniform, mean p of the last batches)   [M, K]
        g   = embedding: two layers on the features, of length 1        [., E]; g_w of weak(u), g_1, g_2 of strong(u)
        A   = softmax over the bank of g_w . bank / temperature         [M, bank]; once the bank is full
        q   = smoothing * p + (1 - smoothing) * A bank's targets        [M, K]
        row weight = 1[max q >= threshold]                              [M]
        Q   = q q^T, 1 on the diagonal, 0 below `edge`, rows normalized [M, M]
        S   = softmax(g_1 g_2^T / temperature)                          [M, M]
        L_c = -mean sum Q log S
        loss = mean CE(z, y) + weight * mean(row weight * CE(logits(strong_1(u)), sg q)) + contrast * L_c

    The bank has g_w with p, and those of labeled rows with their labels, of the last batches.
    The authors' code adds 1e-7 within the logarithm of S.
    """

    threshold: Fraction = 0.95
    """a row counts from this probability of its target on"""
    weight: NotNegative = 1.0
    """factor on the loss of the targets"""
    contrast: NotNegative = 1.0
    """factor on the loss of the embeddings (the paper: 5 on STL-10)"""
    smoothing: Fraction = 0.9
    """share of an image's own prediction in its target; the rest is its neighbors'"""
    temperature: Positive = 0.2
    """of likeness; the smaller, the fewer neighbors count"""
    edge: Fraction = 0.8
    """targets this like are joined"""
    embedding: Count = 64
    """E, size of the embeddings"""
    bank: Count = 5
    """batches that the bank holds"""
    window: Positive = 32.0
    """batches over which predictions are averaged for the alignment, in a run of the paper's length"""

    def setup(self, sizes: Sizes) -> None:
        """Make the projector, the bank and the average that predictions are aligned by."""
        self.projector = Projector(sizes.features, self.embedding)
        rows = self.bank * (sizes.batch + sizes.unlabeled_batch)
        self.recent = RecentBank(rows, self.embedding, sizes.classes)
        self.average = RecentMean(sizes.classes, horizon(self.window, sizes.steps))

    def views(self) -> Views:
        """Ask for a weak and two strong views of each unlabeled row."""
        return Views(labeled=("weak",), unlabeled=("weak", "strong", "strong"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, its parts (without their factors) and `kept`."""
        f, f_w, (f_1, f_2) = self.features(net, batch)
        z_s = net.unlabeled_logits(f_1)
        q = self._targets(target_logits(net, f_w, batch.propagated).softmax(1), f_w, f, batch)
        row_weight = at_least(q, self.threshold)

        labeled_loss = self.supervise(net.logits(f), batch.labels)
        unlabeled_loss = consistency(z_s, q, row_weight)
        contrast_loss = contrast(self.projector(f_1), self.projector(f_2), target_graph(q, self.edge), self.temperature)
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss + self.contrast * contrast_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "contrast_loss": contrast_loss,
            **seen(z_s, q, row_weight),
        }

    @torch.no_grad()
    def _targets(self, p: Tensor, of_weak: Tensor, of_labeled: Tensor, batch: Batch) -> Tensor:
        """Smooth predictions [M, K] by the bank, then let it take in this batch."""
        if not len(p):
            return p
        p = align(p, 1.0, self.average(p))
        g_w, g = self.projector(of_weak), self.projector(of_labeled)
        near = self.recent.targets_near(g_w, self.temperature)
        q = torch.where(batch.step >= self.bank, self.smoothing * p + (1 - self.smoothing) * near, p)
        self.recent.take_in(g_w, p)
        self.recent.take_in(g, one_hot(batch.labels, p.shape[1], like=p))
        return q
