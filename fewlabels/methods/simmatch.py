"""SimMatch (Zheng et al. 2022): likeness to labeled images and class probabilities correct each other."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fewlabels.averaging.horizon import horizon
from fewlabels.config import Count, Fraction, NotNegative, Positive
from fewlabels.inputs.batch import Batch, Views
from fewlabels.methods.base import Method, Sizes
from fewlabels.methods.parts.banks import LabeledBank
from fewlabels.methods.parts.forward import learning_features, target_features, target_logits
from fewlabels.methods.parts.heads import Projector
from fewlabels.methods.parts.losses import consistency, mean_loss, seen
from fewlabels.methods.parts.marginals import RecentMean
from fewlabels.methods.parts.targets import align
from fewlabels.methods.parts.thresholds import at_least
from fewlabels.models.network import Network


class SimMatch(Method):
    """Each unlabeled image is like certain labeled ones, and its strong view has to be like the same.

    All targets are the teacher's, the run's average of the parameters, unless `targets_of` says otherwise.

    ::

        bank = the teacher's embedding of each labeled row, last time, this batch's included   [L, E], length 1
        p  = align(softmax(teacher's logits(weak(u))), uniform, mean p of the last batches)   [M, K]
        q  = softmax over the bank of the teacher's g(weak(u)) . bank / temperature   [M, L]
        q' = normalize(q * p[label of the bank's row])                  [M, L]
        p' = smoothing * p + (1 - smoothing) * (q summed by class)      [M, K]
        row weight = 1[max p' >= threshold]                             [M]
        L_i = mean CE(g(strong(u)) . bank / temperature, sg q')
        loss = mean CE(z, y) + weight * mean(row weight * CE(logits(strong(u)), sg p')) + instance * L_i

    On CIFAR-10 a popular library has no teacher (`targets_of=own`), but a bank that is averaged (`bank_momentum` .7).
    There and in the authors' code the bank starts at random and takes in a batch after its targets are made, and in the
    first epoch there is neither L_i nor smoothing.
    """

    threshold: Fraction = 0.95
    """a row counts from this probability of its target on"""
    weight: NotNegative = 1.0
    """factor on the loss of the classes"""
    instance: NotNegative = 1.0
    """factor on the loss of the likeness"""
    smoothing: Fraction = 0.9
    """share of an image's own prediction in its target; the rest is that of the labeled images it is like"""
    temperature: Positive = 0.1
    """of likeness; the smaller, the fewer labeled images count"""
    embedding: Count = 128
    """E, size of the embeddings"""
    window: Positive = 32.0
    """batches over which predictions are averaged for the alignment (ImageNet: 256), in a run of the paper's length"""
    targets_of: Literal["teacher", "own"] = "teacher"
    """whose predictions and embeddings make targets: those of the averaged parameters, or the network's own"""
    bank_momentum: Fraction = 0.0
    """how much of a labeled row's embedding in the bank stays when it comes again"""

    takes_propagated = True

    def setup(self, sizes: Sizes) -> None:
        """Make the projector, the bank and the average that predictions are aligned by."""
        self.projector = Projector(sizes.features, self.embedding)
        self.bank = LabeledBank(sizes.labeled, self.embedding)
        self.average = RecentMean(sizes.classes, horizon(self.window, sizes.steps))

    def views(self) -> Views:
        """Ask for a weak and a strong view of each unlabeled row."""
        return Views(labeled=("weak",), unlabeled=("weak", "strong"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, its parts (without their factors) and `kept`."""
        (labeled,), (_, strong) = batch.labeled, batch.unlabeled
        f = net.features(labeled)
        z = net.logits(f)
        (f_s,) = learning_features(net, strong)
        target, likeness = self._targets(net, f, batch)
        z_s, row_weight = net.unlabeled_logits(f_s), at_least(target, self.threshold)

        labeled_loss = self.supervise(z, batch.labels)
        unlabeled_loss = consistency(z_s, target, row_weight)
        student = self.bank.similarity(self.projector(f_s), self.temperature).log_softmax(1)
        instance_loss = mean_loss(-(likeness * student.masked_fill(student.isinf(), 0.0)).sum(1))
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss + self.instance * instance_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "instance_loss": instance_loss,
            **seen(z_s, target, row_weight),
        }

    @torch.no_grad()
    def _targets(self, net: Network, of_labeled: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give targets p' [M, K] and q' [M, L]; the bank takes in this batch before."""
        teacher, projector = net, self.projector
        if self.targets_of == "teacher":
            teacher, projector = net.teacher, self.teacher.projector
            of_labeled = target_features(teacher, batch.labeled[0])
        self.bank.take_in(projector(of_labeled), batch.labels, batch.places, self.bank_momentum)
        of_weak = target_features(teacher, batch.unlabeled[0])
        p = target_logits(teacher, of_weak, batch.propagated).softmax(1)
        p = align(p, 1.0, self.average(p))
        q = self.bank.similarity(projector(of_weak), self.temperature).softmax(1)
        classes = self.bank.classes(p.shape[1])
        corrected = q * (p @ classes.T)
        corrected = corrected / corrected.sum(1, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny)
        return self.smoothing * p + (1 - self.smoothing) * (q @ classes), corrected
