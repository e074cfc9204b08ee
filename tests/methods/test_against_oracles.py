"""Each method against its slow reference: loss, row weights, gradients and memories over consecutive steps."""

import numpy as np
import pytest
import torch
from torch import nn

from fewlabels.averaging.ema import Ema
from fewlabels.averaging.horizon import horizon
from fewlabels.inputs.batch import Batch
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.keys import Key
from fewlabels.methods.base import Sizes
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.methods.freematch import FreeMatch
from fewlabels.methods.layermatch import LayerMatch
from fewlabels.methods.parts.output_average import OutputAverage
from fewlabels.methods.pseudo_label import PseudoLabel
from fewlabels.methods.supervised import Supervised
from fewlabels.models.classifier import Card, Classifier
from fewlabels.models.network import LayerRule, Network
from fewlabels.training.schedule import lr_factor
from tests.oracles import basics, layer_rule, threshold_methods

K, D, B, M, STEPS = 5, 4, 6, 9, 40
TOLERANCE = {"rtol": 1e-6, "atol": 1e-9}


class FeaturesAsInput(nn.Module):
    """A backbone whose features are its input, so that gradients of features can be read off the input."""

    def forward(self, x):
        return x[:, 0, 0]


pytestmark = pytest.mark.usefixtures("float64")


def identity_network(rule=None):
    card = Card("custom", tuple("abcde"), ImageForm(1, (1, D)), (0.0,), (1.0,))
    return Network(Classifier(FeaturesAsInput(), D, card), rule, steps=STEPS)


def logits_network():
    """A network whose logits are its input."""
    card = Card("custom", tuple("abcde"), ImageForm(1, (1, K)), (0.0,), (1.0,))
    net = Network(Classifier(FeaturesAsInput(), K, card))
    with torch.no_grad():
        net.classifier.head.weight.copy_(torch.eye(K))
        net.classifier.head.bias.zero_()
    return net


def as_images(values):
    return torch.tensor(values)[:, None, None].requires_grad_()


def task_of(classes, features, rows):
    return Sizes((2,) * classes, features, rows, rows, B, M, STEPS)


def batch_of(labeled, labels, unlabeled, step, rows=None):
    return Batch(
        labeled=(labeled,),
        labels=torch.tensor(labels),
        places=torch.arange(len(labels)),
        unlabeled=unlabeled,
        rows=torch.arange(len(unlabeled[0])) if rows is None and unlabeled else rows,
        step=torch.tensor(step),
        progress=torch.tensor(step / STEPS),
        key=Key(0),
    )


def momentum_of(method_memory=1000.0):
    return basics.horizon_to_momentum(basics.horizon(method_memory, STEPS))


CASES = {
    "supervised": (Supervised(), threshold_methods.Supervised()),
    "pseudo_label": (PseudoLabel(threshold=0.6), threshold_methods.PseudoLabel(threshold=0.6)),
    "pseudo_label options": (
        PseudoLabel(threshold=0.4, weight=2.0, ramp=0.1),
        threshold_methods.PseudoLabel(lambda_=2.0, threshold=0.4, ramp_share=0.1),
    ),
    "fixmatch": (FixMatch(threshold=0.6), threshold_methods.FixMatch(threshold=0.6)),
    "fixmatch joint": (
        FixMatch(threshold=0.3, weight=0.5, passes="one"),
        threshold_methods.FixMatch(threshold=0.3, lambda_=0.5),
    ),
    "freematch": (FreeMatch(), threshold_methods.FreeMatch(K, momentum=momentum_of())),
    "freematch options": (
        FreeMatch(fairness=0.5, weight=2.0, memory=1.2, clip=(0.3, 0.6)),
        threshold_methods.FreeMatch(K, lambda_=2.0, fairness=0.5, momentum=momentum_of(1.2), clip=(0.3, 0.6)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_over_consecutive_steps(case):
    method, oracle = CASES[case]
    method.setup(task_of(K, K, 50))
    method.double()
    net, rng = logits_network(), np.random.default_rng(3)
    kept = []
    for step in range(8):
        scale = 0.5 + step / 3
        z, weak, strong = (scale * rng.normal(size=(n, K)) for n in (B, M, M))
        labels = rng.integers(K, size=B)
        images = [as_images(x) for x in (z, weak, strong)]
        views = tuple(images[1 : 1 + len(method.views().unlabeled)])
        out = method(net, batch_of(images[0], labels, views, step))
        out["loss"].backward()
        expected = oracle.step(z, labels, weak, strong, step, STEPS)
        for name in set(out) & set(expected):
            np.testing.assert_allclose(out[name].detach(), expected[name], err_msg=f"{name} at {step}", **TOLERANCE)
        for image, name in zip(images, ("grad_labeled", "grad_weak", "grad_strong"), strict=True):
            got = np.zeros_like(expected[name]) if image.grad is None else image.grad[:, 0, 0].numpy()
            np.testing.assert_allclose(got, expected[name], err_msg=f"{name} at {step}", **TOLERANCE)
        kept.append(expected["kept"])
        if isinstance(method, FreeMatch):
            for ours, theirs in (("tau", "tau"), ("p_mean", "p_tilde"), ("histogram", "h_tilde")):
                np.testing.assert_allclose(getattr(method.threshold, ours), getattr(oracle, theirs), **TOLERANCE)
    if case != "supervised":
        assert 0 < np.mean(kept) < 1  # the case tests rows of both kinds


@pytest.mark.parametrize("threshold", ["fixed", "self_adaptive", "soft"])
@pytest.mark.parametrize("head_scale", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("center_memory", [0.0, 0.1, 1.0])
def test_layermatch_over_consecutive_steps(threshold, head_scale, center_memory):
    method = LayerMatch(threshold=threshold, confidence=0.5, weight=0.7, memory=1.2)
    task = task_of(K, D, 50)
    method.setup(task)
    method.double()
    net = identity_network(LayerRule({"head": head_scale}, center_memory))
    rng = np.random.default_rng(5)
    oracle = layer_rule.LayerMatch(
        K, threshold, scale=head_scale, use_average=center_memory > 0, lambda_=0.7, threshold=0.5,
        momentum=momentum_of(1.2), center_momentum=1 - 1 / max(1, center_memory * STEPS),
    )  # fmt: skip
    head = net.classifier.head
    for step in range(7):
        f, f_w, f_s = (2 * rng.normal(size=(n, D)) for n in (B, M, M))
        labels = rng.integers(K, size=B)
        w, b = head.weight.detach().numpy().copy(), head.bias.detach().numpy().copy()
        images = [as_images(x) for x in (f, f_w, f_s)]
        out = method(net, batch_of(images[0], labels, tuple(images[1:]), step))
        head.zero_grad()
        out["loss"].backward()
        expected = oracle.step(f, labels, f_w, f_s, w, b, step, STEPS)
        for name in ("loss", "labeled_loss", "unlabeled_loss", "kept", "target", "row_weight"):
            np.testing.assert_allclose(out[name].detach(), expected[name], err_msg=f"{name} at {step}", **TOLERANCE)
        for tensor, name in ((head.weight, "grad_W"), (head.bias, "grad_b")):
            np.testing.assert_allclose(tensor.grad, expected[name], err_msg=f"{name} at {step}", **TOLERANCE)
        for image, name in ((images[0], "grad_f_labeled"), (images[2], "grad_f_strong")):
            np.testing.assert_allclose(image.grad[:, 0, 0], expected[name], err_msg=f"{name} at {step}", **TOLERANCE)
        assert images[1].grad is None
        with torch.no_grad():
            for tensor in (head.weight, head.bias):
                tensor -= 0.3 * tensor.grad
        net.advance(torch.tensor(step))


def test_averaged_outputs_over_visits():
    ours, theirs = OutputAverage(12, K, memory=5.0), layer_rule.OutputAverage(12, K, momentum=0.8)
    rng = np.random.default_rng(0)
    for _ in range(9):
        p = basics.softmax(rng.normal(size=(M, K)))
        rows = rng.integers(12, size=M)  # with rows that stand twice in the batch
        np.testing.assert_allclose(ours(torch.tensor(p), torch.tensor(rows)), theirs.update(rows, p), **TOLERANCE)
    np.testing.assert_allclose(ours.average, theirs.p_bar, **TOLERANCE)
    np.testing.assert_array_equal(ours.visits, theirs.visits)


def test_layermatch_takes_its_targets_from_averaged_outputs():
    method = LayerMatch(threshold="fixed", outputs="averaged", confidence=0.0)
    task = task_of(K, D, 20)
    method.setup(task)
    net, rng = identity_network(method.layer_rule()), np.random.default_rng(1)
    memory = layer_rule.OutputAverage(20, K, momentum_of())
    head = net.classifier.head
    for step in range(5):
        f, f_w, f_s = (2 * rng.normal(size=(n, D)) for n in (B, M, M))
        rows = rng.integers(20, size=M)
        batch = batch_of(
            as_images(f), rng.integers(K, size=B), (as_images(f_w), as_images(f_s)), step, torch.tensor(rows)
        )
        w, b = head.weight.detach().numpy(), head.bias.detach().numpy()
        target = memory.update(rows, basics.softmax(f_w @ w.T + b)).argmax(1)
        expected = basics.cross_entropy(f_s @ w.T + b, target).mean()
        np.testing.assert_allclose(method(net, batch)["unlabeled_loss"].item(), expected, **TOLERANCE)


def test_ema_and_horizon_follow_the_formulas():
    module = nn.Linear(2, 1)
    start = module.weight.detach().numpy().copy()
    ema, values = Ema(module, memory=6.0).double(), []
    for step in range(30):
        with torch.no_grad():
            module.weight += torch.randn(1, 2)
        values.append(module.weight.detach().numpy().copy())
        ema.update(module, torch.tensor(step))
    expected = basics.ema_series(start, values, 1 - 1 / 6)[-1]
    np.testing.assert_allclose(ema.module.weight, expected, rtol=1e-5)
    for paper in (1, 20, 1000, 300_000):
        for steps in (20, 600, 20_000, 2**20):
            assert horizon(paper, steps) == pytest.approx(max(1, basics.horizon(paper, steps)))


def test_the_learning_rate_follows_the_formula():
    for step in (0, 3, 999):
        assert lr_factor(torch.tensor(step), 1000).item() == pytest.approx(basics.cosine_lr(1.0, step, 1000))
