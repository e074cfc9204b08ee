"""bfloat16: in the backbone alone, and gradients as in float32 but for rounding."""

import copy

import pytest
import torch

from fewlabels.inputs.images.decode import ImageForm
from fewlabels.methods.parts.forward import logits_of
from fewlabels.models.classifier import Card, Classifier
from fewlabels.models.network import Network
from fewlabels.models.small_cnn import SmallCNN


@pytest.fixture
def networks():
    torch.manual_seed(0)
    card = Card("small_cnn", tuple("abc"), ImageForm(1, (8, 8)), (0.3,), (0.37,))
    classifier = Classifier(SmallCNN(1, (8, 16)), 16, card).train()
    return {p: Network(copy.deepcopy(classifier), precision=p) for p in ("float32", "bfloat16")}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_backbone_alone_has_the_precision(networks, precision):
    net, seen = networks[precision], {}
    for name, module in net.classifier.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(lambda m, given, out, name=name: seen.update({name: out.dtype}))
    net.logits(net.features(torch.randn(4, 1, 8, 8)))
    assert seen.pop("head") == torch.float32
    assert set(seen.values()) == {getattr(torch, precision)}


def test_gradients_reach_the_backbone_after_a_pass_without(networks):
    given = torch.randn(4, 1, 8, 8), torch.randn(6, 1, 8, 8), torch.randn(6, 1, 8, 8)
    gradients = {}
    for precision, net in networks.items():
        z, _, z_s = logits_of(net, *given, "three")
        (z.square().mean() + z_s.square().mean()).backward()
        gradients[precision] = torch.cat([p.grad.flatten() for p in net.parameters()])
    exact, half = gradients.values()
    assert half.dtype == torch.float32
    assert (half - exact).norm() < 0.1 * exact.norm()
    assert not torch.equal(half, exact)


def test_the_users_own_autocast_is_left_alone(networks):
    seen = []
    net = networks["float32"]
    net.classifier.backbone.register_forward_hook(lambda m, given, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        net.features(torch.randn(4, 1, 8, 8))
    assert seen == [torch.bfloat16]
