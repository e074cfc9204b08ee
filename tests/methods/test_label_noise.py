"""The theory of docs/layers.md: what wrong labels add to the gradient of the head, and of what is before it.

With labels that are j with probability T[y, j] where the truth is y, the expected gradient is the clean one plus

    at the head W          mean over rows of  d_y f^T,    d_y = e_y - T_y
    at each feature f      W^T d_y
    at the backbone        mean over rows of  J^T W^T d_y,  J the derivative of f by the backbone's parameters
"""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fewlabels.inputs.images.decode import ImageForm
from fewlabels.models.classifier import Card, Classifier
from fewlabels.models.network import Network
from fewlabels.models.small_cnn import SmallCNN

K, N, D = 5, 30, 16


pytestmark = pytest.mark.usefixtures("float64")


def network(classes=K):
    torch.manual_seed(0)
    card = Card("small_cnn", tuple("abcde"[:classes]), ImageForm(1, (8, 8)), (0.3,), (0.4,))
    return Network(Classifier(SmallCNN(1, (8, D)), D, card)).train()


def rows():
    torch.manual_seed(1)
    return torch.randn(N, 1, 8, 8), torch.arange(N) % K


def uniform(q):
    """Noise that takes each other class as often."""
    return (1 - q) * torch.eye(K) + q / (K - 1) * (1 - torch.eye(K))


def pair(q):
    """Noise that takes some of class 0 for class 1."""
    noise = torch.eye(K)
    noise[0, :2] = torch.tensor([1 - q, q])
    return noise


def any_noise():
    return torch.softmax(torch.randn(K, K, generator=torch.Generator().manual_seed(2)), 1)


def gradients(net, x, y, noise):
    """Give the expected gradients by the features and by all parameters, label by label: a loss for each label that a
    row may get, weighted by its probability."""
    features = net.features(x)
    logits = net.logits(features)
    losses = torch.stack([F.cross_entropy(logits, torch.full_like(y, j), reduction="none") for j in range(K)], 1)
    loss = (noise[y] * losses).sum(1).mean()
    named = dict(net.classifier.named_parameters())
    found = torch.autograd.grad(loss, [features, *named.values()], retain_graph=True)
    return features, found[0], dict(zip(named, found[1:], strict=True))


@pytest.mark.parametrize("noise", [uniform(0.4), pair(0.7), any_noise()], ids=["uniform", "pair", "any"])
def test_what_noise_adds(noise):
    net, (x, y) = network(), rows()
    features, clean_f, clean = gradients(net, x, y, torch.eye(K))
    _, noisy_f, noisy = gradients(net, x, y, noise)
    d = torch.eye(K)[y] - noise[y]
    weight = net.classifier.head.weight.detach()
    torch.testing.assert_close(noisy["head.weight"] - clean["head.weight"], d.T @ features.detach() / N)
    torch.testing.assert_close(noisy["head.bias"] - clean["head.bias"], d.mean(0))
    torch.testing.assert_close(noisy_f - clean_f, d @ weight / N)
    backbone = {name: p for name, p in net.classifier.named_parameters() if name.startswith("backbone.")}
    pulled = torch.autograd.grad(features, list(backbone.values()), grad_outputs=d @ weight / N)
    for name, expected in zip(backbone, pulled, strict=True):
        torch.testing.assert_close(noisy[name] - clean[name], expected, msg=name)


def test_the_expectation_is_that_of_drawn_labels():
    net, (x, y) = network(), rows()
    noise, draws = any_noise(), 4000
    _, _, expected = gradients(net, x, y, noise)
    generator = torch.Generator().manual_seed(3)
    drawn = torch.multinomial(noise[y], draws, replacement=True, generator=generator)  # [N, draws]
    features = net.features(x).detach()
    p = net.logits(features).softmax(1).detach()
    each = torch.stack([(p - torch.eye(K)[drawn[:, i]]).T @ features / N for i in range(draws)])
    error = (each.mean(0) - expected["head.weight"]) / (each.std(0) / np.sqrt(draws))
    assert error.abs().max() < 5


@pytest.mark.parametrize("q", [0.2, 0.6, 0.95])
def test_uniform_noise_shrinks_the_first_gradients_and_turns_none_before_it_wins(q):
    """Where all classes are equally likely, each gradient is 1 - q K / (K - 1) times the clean one."""
    net, (x, y) = network(), rows()
    weight, scale = net.classifier.head.weight.detach(), 1 - q * K / (K - 1)
    features = net.features(x).detach()
    flat = features - features @ torch.linalg.pinv(weight) @ weight  # all logits are 0
    flat.requires_grad_()
    logits = net.logits(flat)
    torch.testing.assert_close(logits.softmax(1), torch.full((N, K), 1 / K))
    found = []
    for noise in (torch.eye(K), uniform(q)):
        losses = torch.stack([F.cross_entropy(logits, torch.full_like(y, j), reduction="none") for j in range(K)], 1)
        loss = (noise[y] * losses).sum(1).mean()
        found.append(torch.autograd.grad(loss, [flat, net.classifier.head.weight], retain_graph=True))
    for clean, noisy in zip(*found, strict=True):
        assert clean.norm() > 0
        torch.testing.assert_close(noisy, scale * clean)
        assert ((clean * noisy).sum() > 0) == (q < 0.8)


@pytest.mark.parametrize("q", [0.2, 0.7])
def test_relative_to_what_an_image_gives_noise_turns_the_head_and_the_backbone_alike(q):
    """With two classes each layer's gradient of an image is (p_b - q) / p_b times the clean one."""
    net, (x, _) = network(2), rows()
    x, y = x[:1].repeat(4, 1, 1, 1), torch.zeros(4, dtype=torch.int64)  # one image, as batch norm wants several
    x[1:] = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    noise = torch.tensor([[1 - q, q], [0, 1.0]])
    named = dict(net.classifier.named_parameters())
    logits = net.logits(net.features(x))[:1]
    of_b = float(logits.softmax(1)[0, 1])
    found = []
    for labels in (torch.eye(2), noise):
        loss = -(labels[y[:1]] * logits.log_softmax(1)).sum()
        found.append(torch.autograd.grad(loss, list(named.values()), retain_graph=True))
    assert 0.05 < of_b < 0.95
    for name, clean, noisy in zip(named, *found, strict=True):
        assert clean.norm() > 0
        torch.testing.assert_close(noisy, (of_b - q) / of_b * clean, msg=name)


def test_gradients_of_a_layer_compare_by_its_kernel():
    """For the head it is that of the features: sum over pairs of rows of (r_i . c_j)(f_i . f_j + 1)."""
    net, (x, y) = network(), rows()
    features, _, clean = gradients(net, x, y, torch.eye(K))
    _, _, noisy = gradients(net, x, y, any_noise())
    p, f = net.logits(features).softmax(1).detach(), features.detach()
    c, r = (p - torch.eye(K)[y]) / N, (p - any_noise()[y]) / N
    found = sum((clean[name] * noisy[name]).sum() for name in ("head.weight", "head.bias"))
    torch.testing.assert_close(found, ((r @ c.T) * (f @ f.T + 1)).sum())


def test_confusing_near_centers_counts_less_before_the_head_against_what_the_other_classes_give():
    """As two centers meet, what their confusion adds vanishes in the backbone, and stays in the head."""
    net, (x, y) = network(), rows()
    at_head, at_backbone, clean_of = [], [], []
    for apart in (1.0, 0.1, 0.01):
        with torch.no_grad():
            head = net.classifier.head.weight
            head[1] = head[0] + apart * torch.ones(D) / np.sqrt(D)
        features, clean_f, clean = gradients(net, x, y, torch.eye(K))
        _, noisy_f, noisy = gradients(net, x, y, pair(0.5))
        of_class = features.detach()[y == 0].mean(0)
        backbone = [name for name in clean if name.startswith("backbone.")]
        at_head.append((noisy["head.weight"] - clean["head.weight"]).norm())
        at_backbone.append(torch.cat([(noisy[n] - clean[n]).flatten() for n in backbone]).norm())
        clean_of.append(torch.cat([clean[n].flatten() for n in backbone]).norm())
        torch.testing.assert_close(at_head[-1], 0.5 * np.sqrt(2) / K * of_class.norm())  # q sqrt(2) pi_a |mu_a|
        at_features = (noisy_f - clean_f).norm(dim=1).max() * N
        torch.testing.assert_close(at_features, torch.tensor(0.5 * apart))  # q |w_a - w_b|
    torch.testing.assert_close(at_head[2], at_head[0])
    torch.testing.assert_close(at_backbone[2] / at_backbone[0], torch.tensor(0.01))
    assert clean_of[2] > 0.3 * clean_of[0]  # the other classes still pull


def test_with_one_feature_a_class_the_head_rests_on_the_noisy_shares():
    noise = any_noise()
    weight = noise.log().T.clone().requires_grad_()  # one-hot features: the logits of class y are log T[y]
    logits = torch.eye(K) @ weight.T
    loss = -(noise * logits.log_softmax(1)).sum(1).mean()
    (gradient,) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(logits.softmax(1), noise)
    torch.testing.assert_close(gradient, torch.zeros(K, K), atol=1e-12, rtol=0)
