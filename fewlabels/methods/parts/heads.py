"""Small networks on the features that some methods train beside the classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Projector(nn.Sequential):
    """Maps features [n, D] to embeddings [n, E] of length 1: two layers, with leaky ReLU between them."""

    def __init__(self, features: int, embedding: int) -> None:
        super().__init__(nn.Linear(features, features), nn.LeakyReLU(0.1), nn.Linear(features, embedding))

    def forward(self, input: Tensor) -> Tensor:
        """Map features [n, D] to embeddings [n, E]."""
        return F.normalize(super().forward(input), dim=1)


def auxiliary_head(features: int, classes: int) -> nn.Sequential:
    """Make a head of three layers, D, D/4, D/4, K, with batch norm (Yang et al. 2023)."""
    hidden = max(features // 4, 1)
    layers: list[nn.Module] = []
    for before in (features, hidden):
        # Its statistics are needed in training alone, where they are the batch's.
        norm = nn.BatchNorm1d(hidden, track_running_stats=False)
        layers += [nn.Linear(before, hidden), norm, nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Linear(hidden, classes))
