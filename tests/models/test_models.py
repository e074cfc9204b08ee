"""The networks, what they cost, and how they are saved and read."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fewlabels.errors import UserError
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.store import ResidentImages
from fewlabels.keys import Key
from fewlabels.methods.parts.forward import target_features
from fewlabels.models.build import build_classifier, flops
from fewlabels.models.classifier import Card, load_tensors, read_card
from fewlabels.models.network import LayerRule, Network
from fewlabels.models.small_cnn import SmallCNN
from fewlabels.models.wide_resnet import wrn_28_2, wrn_28_8, wrn_37_2

pytestmark = pytest.mark.versions


def card(model="small_cnn", channels=1, size=16, classes="abc"):
    return Card(model, tuple(classes), ImageForm(channels, (size, size)), (0.5,) * channels, (0.5,) * channels)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("make", "features", "published"),
    [(wrn_28_2, 128, 1_467_610 - 1290), (wrn_28_8, 512, 23_354_842 - 5130), (wrn_37_2, 256, None)],
)
def test_wide_resnets_have_the_published_size(make, features, published):
    """WRN-28-2 with a head of 10 classes has 1,467,610 parameters (Oliver et al. 2018: 1.5 million)."""
    network = make(3)
    assert network.num_features == features
    if published is not None:
        assert parameters(network) == published
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, features)
    if make is wrn_37_2:
        assert 5.8e6 < parameters(network) < 6.0e6


def test_the_small_network_costs_what_its_docstring_says():
    assert flops(build_classifier(card(size=16), key=Key(0))) / 1e6 == pytest.approx(1.2, abs=0.05)
    assert flops(build_classifier(card(size=28), key=Key(0))) / 1e6 == pytest.approx(4.1, abs=0.05)


def test_group_norm_has_no_statistics_of_the_batch():
    network = SmallCNN(1, norm="group")
    x = torch.randn(4, 1, 16, 16)
    torch.testing.assert_close(network(x)[:1], network(x[:1]))
    assert not list(network.buffers())


def test_initial_parameters_are_a_function_of_the_key():
    first, second, third = (build_classifier(card(), key=Key(k)) for k in (1, 1, 2))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
    assert not torch.equal(first.head.weight, third.head.weight)


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    build_classifier(card(), key=Key(5))
    assert torch.equal(torch.rand(2), expected)


def test_save_and_read(tmp_path):
    classifier = build_classifier(card(), key=Key(1))
    classifier.save(tmp_path)
    again = build_classifier(read_card(tmp_path / "model.json"), key=Key(2))
    load_tensors(again, tmp_path / "model.safetensors")
    assert again.card == classifier.card
    images, rows = ResidentImages(torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)), np.arange(3)
    assert torch.equal(again.probabilities(images, rows), classifier.probabilities(images, rows))


def test_a_card_of_a_newer_format_is_refused(tmp_path):
    build_classifier(card(), key=Key(1)).save(tmp_path)
    fields = json.loads((tmp_path / "model.json").read_text()) | {"format": 99}
    (tmp_path / "model.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match="newer"):
        read_card(tmp_path / "model.json")
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(UserError, match="not a model card"):
        read_card(tmp_path / "model.json")


def test_tensors_that_do_not_fit_or_are_damaged_are_refused(tmp_path):
    classifier = build_classifier(card(), key=Key(1))
    save_file({"head.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="does not fit"):
        load_tensors(classifier, tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_tensors(classifier, tmp_path / "torn.safetensors")


def test_weights_fill_the_backbone_from_a_classifier_or_from_a_backbone(tmp_path):
    source = build_classifier(card(), key=Key(1))
    source.save(tmp_path)
    save_file(source.backbone.state_dict(), tmp_path / "backbone.safetensors")
    for name in ("model", "backbone"):
        built = build_classifier(card(classes="xy"), key=Key(2), weights=tmp_path / f"{name}.safetensors")
        assert torch.equal(
            built.backbone.state_dict()["stage1.0.0.weight"], source.backbone.state_dict()["stage1.0.0.weight"]
        )
        assert built.head.out_features == 2


def test_a_timm_backbone_reads_weights_that_were_saved_before(tmp_path):
    first = build_classifier(card("resnet10t", 3, 32), key=Key(1))
    save_file({k: v.contiguous() for k, v in first.backbone.state_dict().items()}, tmp_path / "w.safetensors")
    second = build_classifier(card("resnet10t", 3, 32), key=Key(2), weights=tmp_path / "w.safetensors")
    assert all(
        torch.equal(v, second.backbone.state_dict()[k]) for k, v in load_file(tmp_path / "w.safetensors").items()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": nn.Conv2d(1, 4, 3)}, r"gives \[2, 4, 14, 14\]"),
        ({"backbone": nn.Linear(3, 3)}, "does not take images of 16x16"),
        ({"pretrained": True}, "no published weights"),
        ({"weights": "nowhere.safetensors"}, "no file"),
    ],
)
def test_networks_that_cannot_be_are_refused(changes, message, tmp_path):
    if "weights" in changes:
        changes = {"weights": tmp_path / changes["weights"]}
    with pytest.raises(UserError, match=message):
        build_classifier(card("custom" if "backbone" in changes else "small_cnn"), key=Key(0), **changes)


def test_a_frozen_backbone_stays_as_it_is():
    classifier = build_classifier(card(), key=Key(0), freeze=True)
    before = {k: v.clone() for k, v in classifier.backbone.state_dict().items()}
    classifier.train()
    classifier(torch.randn(8, 1, 16, 16)).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in classifier.backbone.state_dict().items())
    assert all(p.grad is None for p in classifier.backbone.parameters())
    assert classifier.head.weight.grad is not None


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_the_layer_rule_has_the_value_of_the_average_and_the_scaled_gradient(scale, memory):
    net = Network(build_classifier(card(), key=Key(0)), LayerRule({"head": scale}, memory), steps=10)
    head = net.classifier.head
    start = head.weight.detach().clone()
    with torch.no_grad():
        head.weight += 1
    net.advance(torch.tensor(0))
    expected = start + 0.5 if memory else start + 1
    f = torch.randn(7, 64, requires_grad=True)
    z = net.unlabeled_logits(f)
    torch.testing.assert_close(z, f @ expected.T + head.bias)
    z.sum().backward()
    torch.testing.assert_close(f.grad, torch.ones(7, 3) @ expected)
    if scale:
        torch.testing.assert_close(head.weight.grad, scale * torch.ones(3, 7) @ f.detach())
    else:
        assert head.weight.grad is None


def test_targets_of_a_frozen_backbone_are_what_it_says():
    """Its norms stay in evaluation; targets from statistics of the batch would be another network's."""
    classifier = build_classifier(card(), key=Key(0), freeze=True)
    net = Network(classifier).train()
    x = 3 + torch.randn(8, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(target_features(net, x), net.features(x))


def test_targets_move_no_running_statistics():
    net = Network(build_classifier(card(), key=Key(0))).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    target_features(net, torch.randn(8, 1, 16, 16))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_published_weights_with_their_own_classifier_fill_a_timm_backbone(tmp_path):
    import timm

    published = timm.create_model("resnet10t", num_classes=5)
    save_file({k: v.contiguous() for k, v in published.state_dict().items()}, tmp_path / "w.safetensors")
    built = build_classifier(card("resnet10t", 3, 32), key=Key(1), weights=tmp_path / "w.safetensors")
    assert torch.equal(built.backbone.state_dict()["conv1.0.weight"], published.state_dict()["conv1.0.weight"])
    assert built.card.mean == pytest.approx((0.485, 0.456, 0.406))
