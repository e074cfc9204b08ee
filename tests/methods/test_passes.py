"""Which views share batch statistics, which are remembered, and that a network without them sees no difference."""

import copy

import pytest
import torch

from fewlabels.inputs.batch import Batch
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.keys import Key
from fewlabels.methods.adamatch import AdaMatch
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.draws import of_rows
from fewlabels.methods.parts.forward import logits_of, statistics_kept
from fewlabels.models.classifier import Card, Classifier
from fewlabels.models.network import Network
from fewlabels.models.small_cnn import SmallCNN

PASSES = ("one", "two", "three")


def network(norm="batch"):
    torch.manual_seed(0)
    card = Card("small_cnn", tuple("abc"), ImageForm(1, (8, 8)), (0.3,), (0.37,))
    return Network(Classifier(SmallCNN(1, (8, 16), norm), 16, card)).train()


def views(n):
    torch.manual_seed(1)
    return torch.randn(4, 1, 8, 8), torch.randn(n, 1, 8, 8) + 1, 3 * torch.randn(n, 1, 8, 8)


def first_statistics(net):
    norm = next(m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))
    return norm.running_mean.clone(), norm.running_var.clone(), int(norm.num_batches_tracked)


@pytest.mark.parametrize("passes", PASSES)
def test_what_is_remembered_are_the_statistics_of_the_labeled_pass(passes):
    net, (labeled, weak, strong) = network(), views(6)
    shared = {"one": [labeled, weak, strong], "two": [labeled, strong], "three": [labeled]}[passes]
    expected = copy.deepcopy(net)
    expected.features(torch.cat(shared))
    logits_of(net, labeled, weak, strong, passes)
    for mine, theirs in zip(first_statistics(net), first_statistics(expected), strict=True):
        assert mine == theirs if isinstance(mine, int) else torch.equal(mine, theirs)


def test_a_pass_of_its_own_is_normalized_by_its_own_batch():
    net, (labeled, weak, strong) = network(), views(6)
    z, z_w, z_s = logits_of(net, labeled, weak, strong, "three")
    for views_, logits in ((labeled, z), (weak, z_w), (strong, z_s)):
        torch.testing.assert_close(logits, net.logits(net.features(views_)))


@pytest.mark.parametrize("passes", PASSES)
def test_a_network_without_batch_statistics_sees_no_difference(passes):
    net, given = network("group"), views(6)
    for mine, theirs in zip(logits_of(net, *given, passes), logits_of(net, *given, "one"), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("passes", PASSES)
def test_gradients_flow_from_labeled_and_strong_views_alone(passes):
    net, given = network(), views(6)
    labeled, weak, strong = (view.requires_grad_() for view in given)
    z, z_w, z_s = logits_of(net, labeled, weak, strong, passes)
    assert not z_w.requires_grad
    (z.square().sum() + z_s.square().sum()).backward()
    assert labeled.grad.abs().sum() > 0 and strong.grad.abs().sum() > 0
    # In one pass the weak views move the statistics by which the others are normalized.
    assert (weak.grad is not None and weak.grad.abs().sum() > 0) == (passes == "one")


@pytest.mark.parametrize("passes", PASSES)
def test_no_unlabeled_rows(passes):
    z, z_w, z_s = logits_of(network(), *views(0), passes)
    assert (z.shape, z_w.shape, z_s.shape) == ((4, 3), (0, 3), (0, 3))


def test_adamatch_mixes_each_labeled_logit_of_two_passes_and_remembers_the_joint_one():
    (labeled, weak, strong), labels = views(6), torch.tensor([0, 1, 2, 1])
    zero = torch.zeros((), dtype=torch.int64)
    batch = Batch(
        (labeled, -labeled), labels, torch.arange(4), (weak, strong), torch.arange(6), zero, zero.float(), Key(3)
    )
    net = network()
    expected, both = copy.deepcopy(net), torch.cat([labeled, -labeled])
    together = expected.logits(expected.joint_features([both, weak, strong])[0])
    with statistics_kept(expected):
        alone = expected.logits(expected.features(both))
    share = of_rows(batch.key, "interpolation", *batch.labeled).uniforms(3).T
    assert share.shape == alone.shape and len(share.unique()) == share.numel()  # a draw for each logit
    assert not torch.allclose(together, alone, atol=1e-3)

    method = AdaMatch()
    method.setup(Sizes((4, 4, 4), 16, 20, 8, 4, 6, 100))
    found = method(net, batch)["labeled_loss"]
    mixed = share * together + (1 - share) * alone
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(mixed, labels.repeat(2)))
    for mine, theirs in zip(first_statistics(net), first_statistics(expected), strict=True):
        assert mine == theirs if isinstance(mine, int) else torch.equal(mine, theirs)
