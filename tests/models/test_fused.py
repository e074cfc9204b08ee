"""Networks whose batch norms are put into their convolutions: the same outputs, or left as they are."""

import pytest
import timm
import torch
from torch import nn

from fewlabels.models.fused import fused
from fewlabels.models.small_cnn import SmallCNN
from fewlabels.models.wide_resnet import wrn_28_2


def trained(network):
    """Give the norms statistics that are not those of the beginning."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


def norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(("name", "left"), [("tf_efficientnet_lite0", 0), ("resnet10t", 1)])  # one after a Sequential
def test_outputs_are_the_same_and_norms_are_gone(name, left):
    torch.manual_seed(0)
    network = trained(timm.create_model(name, num_classes=0)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 64, 64)
    found = fused(network, x)
    assert norms(network) > norms(found) == left
    with torch.no_grad():
        torch.testing.assert_close(found(x), network(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("network", [SmallCNN(1), wrn_28_2(1), nn.Sequential(nn.Flatten(), nn.Linear(256, 3))])
def test_other_networks_keep_their_outputs(network):
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found = fused(trained(network), x)
    with torch.no_grad():
        torch.testing.assert_close(found(x), network(x), rtol=1e-3, atol=1e-4)


def test_norms_that_do_not_follow_their_neighbor_are_left_alone():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.convolution(self.norm(x)).mean((2, 3))

    torch.manual_seed(0)
    network, x = trained(Turned()), torch.randn(2, 3, 8, 8)
    found = fused(network, x)
    assert norms(found) == 1 and torch.equal(found(x), network(x))
