"""The network as a method sees it, and the one place where the layer rule is applied."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.averaging.ema import Ema
from fewlabels.models.classifier import Classifier


@dataclass(frozen=True)
class LayerRule:
    """How unlabeled rows use the head (LayerMatch, Liang et al. 2024; the usual case is the default).

    Attributes:
        head_scale: s, the factor on the gradient that unlabeled rows give to the head. 0 is Grad-ReLU, 1 the usual.
        center_memory: steps that the averaged class centers remember (Avg-Clustering), or None: no average.
    """

    head_scale: float = 1.0
    center_memory: float | None = None


class Network(nn.Module):
    """A classifier with a rule for unlabeled rows.

    Write z = W f(x) + b. Labeled rows use the head as it is. Unlabeled rows use
    W_u = sg(V) + s (W - sg(W)), where V is W or its moving average, and b likewise: the value is V's, the
    gradient that reaches W is scaled by s, and the gradient to the features flows through V.

    Args:
        classifier: the backbone and the head.
        rule: how unlabeled rows use the head.
        precision: of the arithmetic in the backbone; the head and the losses have float32.
    """

    def __init__(
        self,
        classifier: Classifier,
        rule: LayerRule | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__()
        rule = rule or LayerRule()
        self.classifier = classifier
        self.precision = precision
        self.head_scale = rule.head_scale
        for part in classifier.modules():
            if isinstance(part, nn.Conv2d):
                part.to(memory_format=torch.channels_last)  # as the views come
        norms = (m for m in classifier.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        self.norms = [norm for norm in norms if norm.track_running_stats]
        self.centers = None if rule.center_memory is None else Ema(classifier.head, rule.center_memory)

    def features(self, x: Tensor) -> Tensor:
        """Map normalized images [n, C, H, W] to features [n, D], in float32 also where the backbone has less."""
        half = self.precision == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16) if half else nullcontext():
            features = self.classifier.features(x)
        return features.to(self.classifier.head.weight.dtype)

    def logits(self, features: Tensor) -> Tensor:
        """Map features of labeled rows [n, D] to logits [n, K]."""
        return self.classifier.head(features)

    def unlabeled_logits(self, features: Tensor) -> Tensor:
        """Map features of unlabeled rows [n, D] to logits [n, K] under the layer rule."""
        head = self.classifier.head
        value = head if self.centers is None else self.centers.module
        assert isinstance(value, nn.Linear)
        weight = self._with_rule(value.weight, head.weight)
        bias = self._with_rule(value.bias, head.bias)
        return F.linear(features, weight, bias)

    def _with_rule(self, value: Tensor, parameter: Tensor) -> Tensor:
        if self.head_scale == 0:
            return value.detach()  # the same numbers as below, and no gradient of zeros that is then summed
        if self.head_scale == 1 and value is parameter:
            return parameter
        return value.detach() + self.head_scale * (parameter - parameter.detach())

    def advance(self, step: Tensor) -> None:
        """Let the averaged centers take in the head after update number `step` (0-dim, from 0)."""
        if self.centers is not None:
            self.centers.update(self.classifier.head, step)
