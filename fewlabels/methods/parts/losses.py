"""Losses as pure functions. The mean over unlabeled rows is over all M of them, kept or not."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fewlabels.methods.parts.across import mean_rows, sum_rows
from fewlabels.methods.parts.targets import one_hot
from fewlabels.processes import world_size


def seen(logits: Tensor, target: Tensor, row_weight: Tensor) -> dict[str, Tensor]:
    """Put together what is recorded of the unlabeled rows (`kept`), and what the layer probe reads of them."""
    return {"kept": mean_rows(row_weight), "unlabeled_logits": logits, "target": target, "row_weight": row_weight}


def mean_loss(losses: Tensor) -> Tensor:
    """Average losses [M] over the rows; 0 without rows."""
    return losses.sum() / max(len(losses), 1)


def mean_over(losses: Tensor, counts: Tensor) -> Tensor:
    """Average losses over the entries that count (0 or 1, of the same shape), of all processes; 0 where none does."""
    # Each process then averages its gradients with the others'.
    return (losses * counts).sum() * world_size() / sum_rows(counts).sum().clamp(min=1)


def consistency(logits: Tensor, target: Tensor, row_weight: Tensor) -> Tensor:
    """Average over all rows the cross-entropy to each row's target, times its weight; 0 without rows.

    Args:
        logits: [M, K], of the view that learns.
        target: int64 [M] classes or float [M, K] distributions; no gradient reaches it.
        row_weight: [M], how much each row counts.
    """
    return mean_loss(F.cross_entropy(logits, target.detach(), reduction="none") * row_weight.detach())


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """Give KL(target || softmax(logits)) of each row [M]; no gradient reaches the target [M, K]."""
    return F.kl_div(logits.log_softmax(1), target.detach(), reduction="none").sum(1)


def squared_error(logits: Tensor, target: Tensor) -> Tensor:
    """Give the mean over classes of (softmax(logits) - target)^2 of each row [M]; the gradient reaches both."""
    return (logits.softmax(1) - target).square().mean(1)


def normalize(x: Tensor) -> Tensor:
    """Divide by the sum [K]; all zeros stay zeros."""
    return x / x.sum().clamp(min=1e-12)


def fairness(p_mean: Tensor, histogram: Tensor, strong: Tensor, row_weight: Tensor) -> Tensor:
    """Give FreeMatch's loss that keeps the classes apart, sum_k a_k log b_k (Wang et al. 2023).

    a = normalize(p_mean / histogram), and b is the same ratio on the kept rows of this batch: the mean of
    softmax(strong) over the histogram of its largest entries. 1/0 is read as 0; without kept rows the loss is 0.

    Args:
        p_mean, histogram: [K], running means of the targets' probabilities and of their largest entries.
        strong: logits [M, K] of the strong views; the gradient reaches the mean of their softmax alone.
        row_weight: [M], 1 for kept rows, else 0.
    """
    kept = row_weight[:, None].detach()
    p = strong.softmax(1)
    largest = one_hot(strong.detach().argmax(1), strong.shape[1], like=p)
    count = sum_rows(kept).clamp(min=1)
    b = normalize(_ratio(sum_rows(p * kept) / count, sum_rows(largest * kept) / count))
    a = normalize(_ratio(p_mean, histogram)).detach()
    return (a * (b + 1e-12).log()).sum() * (sum_rows(kept) > 0).squeeze()


def _ratio(over: Tensor, under: Tensor) -> Tensor:
    """Divide [K] by [K]; what is divided by zero is zero."""
    some = under > 0
    return over * some / under.where(some, under.new_ones(()))
