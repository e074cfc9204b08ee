"""The network as a method sees it, and the one place where the layer rule is applied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fewlabels.averaging.batch_norm import batch_norms
from fewlabels.averaging.ema import Ema
from fewlabels.errors import UserError
from fewlabels.models.classifier import Classifier
from fewlabels.models.layers import Policy, scales_of
from fewlabels.models.teacher import leader


@dataclass(frozen=True)
class LayerRule:
    """How unlabeled rows use the layers (LayerMatch, Liang et al. 2024; the usual case is the default).

    Attributes:
        policy: factors on the gradient that unlabeled rows give, by layer; {"head": 0} is Grad-ReLU.
        center_memory: share of the run that the averaged class centers remember (Avg-Clustering): 1 is the mean over
            all steps so far, 0 no average.
    """

    policy: Policy = field(default_factory=dict[str, float])
    center_memory: float = 0.0


class Network(nn.Module):
    """A classifier with a rule for unlabeled rows.

    Write z = W f(x) + b. Labeled rows use all parameters as they are. Unlabeled rows use, for each parameter w with
    the factor s, w_u = sg(v) + s (w - sg(w)), where v is w, or in the head its moving average: the value is v's, the
    gradient that reaches w is scaled by s, and the gradient to what comes before flows through v.

    Args:
        classifier: the backbone and the head.
        rule: how unlabeled rows use them.
        precision: of the arithmetic in the backbone; the head and the losses have float32.
        steps: length of the run, which averaged centers need.

    Raises:
        UserError: the rule's policy names no layer of this classifier; averaged centers without the length.
    """

    def __init__(
        self,
        classifier: Classifier,
        rule: LayerRule | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
        steps: int | None = None,
    ) -> None:
        super().__init__()
        rule = rule or LayerRule()
        self.classifier = classifier
        self.precision: Literal["float32", "bfloat16"] = precision
        self.scales = scales_of(classifier, rule.policy)
        for part in classifier.modules():
            if isinstance(part, nn.Conv2d):
                part.to(memory_format=torch.channels_last)  # as the views come
        self.norms = [norm for norm in batch_norms(classifier) if norm.track_running_stats]
        self.centers = _averaged_centers(classifier, rule.center_memory, steps) if rule.center_memory else None

    @property
    def teacher(self) -> Network:
        """The network with averaged parameters, which gets no gradient.

        Raises:
            UserError: it follows none.
        """
        return leader(self)

    def unscaled(self) -> Network:
        """Give a copy in which the gradient of unlabeled rows reaches every layer as it is."""
        copy = deepcopy(self)
        copy.scales = {}
        return copy

    def features(self, x: Tensor) -> Tensor:
        """Map normalized images of labeled rows [n, C, H, W] to features [n, D].

        They are float32 also where the backbone has less.
        """
        return self._through(self.classifier.backbone, x)

    def unlabeled_features(self, x: Tensor) -> Tensor:
        """Map normalized images of unlabeled rows [n, C, H, W] to features [n, D] under the layer rule.

        The values are those of `features`; n may be 0, which batch norm refuses.
        """
        if not len(x):
            return x.new_zeros(0, self.classifier.head.in_features)
        backbone = self.classifier.backbone
        scaled: dict[str, Tensor] = {}
        for name in self._scaled_in_backbone():
            parameter = self.classifier.get_parameter(name)
            scaled[name.removeprefix("backbone.")] = _scaled(parameter, parameter, self.scales[name])
        return self._through(partial(functional_call, backbone, scaled) if scaled else backbone, x)

    def joint_features(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Map images of labeled and unlabeled rows in one pass to the features of each.

        Raises:
            UserError: a policy for layers of the backbone, whose gradients the pass would not tell apart.
        """
        if names := self._scaled_in_backbone():
            raise UserError(
                f"a policy for the backbone (here for {names[0]}{', ...' if len(names) > 1 else ''}) needs a pass of "
                "their own for unlabeled views: where they share one with labeled views, the gradients cannot be told "
                "apart. Give --method.passes three where the method has it (pseudo_label: --method.passes two; "
                "adamatch: --method.interpolation False), or a policy for the head alone."
            )
        sizes = [len(view) for view in views]
        return list(self.features(torch.cat(list(views))).split(sizes))

    def mixed_features(self, x: Tensor) -> Tensor:
        """Map images that are each made of several rows [n, C, H, W] to features [n, D].

        Raises:
            UserError: a rule for unlabeled rows, which are no rows of their own here.
        """
        if self.scales or self.centers is not None:
            raise UserError(
                "this method mixes images, labeled with unlabeled ones, so that no layer can tell whose gradient it "
                "gets: leave --policy and --classify.center-memory out, or take a method that does not mix"
            )
        return self.features(x)

    def logits(self, features: Tensor) -> Tensor:
        """Map features of labeled rows [n, D] to logits [n, K]."""
        return self.classifier.head(features)

    def unlabeled_logits(self, features: Tensor) -> Tensor:
        """Map features of unlabeled rows [n, D] to logits [n, K] under the layer rule."""
        head = self.classifier.head
        value = head if self.centers is None else self.centers.module
        assert isinstance(value, nn.Linear)
        weight = _scaled(value.weight, head.weight, self.scales.get("head.weight", 1.0))
        bias = _scaled(value.bias, head.bias, self.scales.get("head.bias", 1.0))
        return F.linear(features, weight, bias)

    def _scaled_in_backbone(self) -> list[str]:
        return [name for name in self.scales if name.startswith("backbone.")]

    def _through(self, backbone: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        half = self.precision == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16) if half else nullcontext():
            features = backbone(x)
        return features.to(self.classifier.head.weight.dtype)

    def advance(self, step: Tensor) -> None:
        """Let the averaged centers take in the head after update number `step` (0-dim, from 0)."""
        if self.centers is not None:
            self.centers.update(self.classifier.head, step)


def _averaged_centers(classifier: Classifier, share: float, steps: int | None) -> Ema:
    if steps is None:
        raise UserError("the memory of averaged centers is a share of the run: give Network its length, steps=...")
    return Ema(classifier.head, max(1.0, share * steps), start=2.0)


def _scaled(value: Tensor, parameter: Tensor, scale: float) -> Tensor:
    """Give `value` with `scale` times the gradient for `parameter`, of the same shape."""
    if scale == 0:
        return value.detach()  # the same numbers as below, and no gradient of zeros that is then summed
    if scale == 1 and value is parameter:
        return parameter
    return value.detach() + scale * (parameter - parameter.detach())
