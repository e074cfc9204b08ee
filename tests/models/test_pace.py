"""How many images go through a network at a time."""

import numpy as np
import pytest
import torch

from fewlabels.errors import UserError
from fewlabels.inputs.base import CHUNK
from fewlabels.inputs.images.decode import Form
from fewlabels.inputs.images.store import MOST_THREADS, ResidentImages, decoded
from fewlabels.keys import Key
from fewlabels.models.build import build_classifier
from fewlabels.models.classifier import Card
from fewlabels.models.pace import SIZES, TRIES, Pace

CARD = Card("small_cnn", ("a", "b"), Form(1, (8, 8)), (0.5,), (0.5,))
IMAGES = np.random.default_rng(0).integers(0, 256, (2 * CHUNK + 70, 8, 8), np.uint8)


@pytest.mark.parametrize("fastest", SIZES)
def test_the_fastest_size_is_found_and_kept(fastest):
    pace, seen = Pace(), []
    for _ in range(TRIES * len(SIZES)):
        seen.append(pace.size)
        pace.took(pace.size, pace.size * (1.0 if pace.size == fastest else 1.1))
    assert seen == list(SIZES) * TRIES
    assert pace.size == fastest
    pace.took(fastest, 1e9)
    assert pace.size == fastest


def test_the_first_try_of_a_size_may_be_slow():
    pace = Pace()
    for seconds in (9, 9, 9, 9, 2, 1, 2, 2):
        pace.took(pace.size, seconds * pace.size)
    assert pace.size == SIZES[1]


def test_less_than_half_of_the_size_says_nothing():
    pace = Pace()
    pace.took(SIZES[0] // 2 - 1, 0.0)
    assert pace.size == SIZES[0]
    pace.took(SIZES[0] - 1, 0.0)  # one of them could not be read
    assert pace.size == SIZES[1]


@pytest.mark.parametrize("batch", [0, -3, "many", None, 2.5, True])
def test_a_batch_is_one_image_at_least(batch):
    with pytest.raises(UserError, match="at least 1, or auto"):
        build_classifier(CARD, key=Key(0)).predict(IMAGES[:2], batch)


@pytest.mark.parametrize(("batch", "sizes"), [(512, {512, 70}), (100, {100, 56, 70})])
def test_a_given_batch_is_what_goes_through_the_network(batch, sizes):
    classifier, seen = build_classifier(CARD, key=Key(0)).eval(), set()
    classifier.backbone.register_forward_pre_hook(lambda _, given: seen.add(len(given[0])))
    list(classifier.classified(list(IMAGES), batch))
    assert seen == sizes


def test_a_given_size_stays_and_a_halved_one_too():
    given, found = Pace(48), Pace()
    given.took(48, 1.0)
    found.halve()
    found.took(SIZES[0] // 2, 1.0)
    assert (given.size, found.size) == (48, SIZES[0] // 2)


@pytest.mark.parametrize("batch", ["auto", 1, 100, 256])
def test_parts_of_any_size_give_what_the_whole_gives(batch):
    classifier = build_classifier(CARD, key=Key(0)).eval()
    pixels = torch.from_numpy(IMAGES[:, None])
    whole = classifier.probabilities(ResidentImages(pixels), np.arange(len(pixels)), Pace(len(pixels)))
    parts = list(classifier.classified(list(IMAGES), batch))
    assert [first for first, _, _ in parts] == [0, CHUNK, 2 * CHUNK]
    torch.testing.assert_close(
        classifier.calibrated(torch.cat([seen.logits for _, seen, _ in parts])), whole, rtol=1e-5, atol=1e-6
    )
    labels, probabilities = classifier.predict(list(IMAGES), batch)
    assert np.allclose(probabilities, whole.numpy(), rtol=1e-5, atol=1e-6)
    assert labels.tolist() == ["ab"[k] for k in whole.argmax(1)]


def test_broken_images_of_later_parts_have_their_own_place():
    classifier = build_classifier(CARD, key=Key(0)).eval()
    images = [*IMAGES[:CHUNK], "none.png", IMAGES[0]]
    (_, _, none), (first, seen, broken) = classifier.classified(images)
    assert (none, first, list(broken), len(seen.logits)) == ({}, CHUNK, [0], 1)
    with pytest.raises(UserError, match=r"1 of the images cannot be read: none\.png"):
        classifier.predict(images)
    assert classifier.predict([])[1].shape == (0, 2)


def test_few_images_are_decoded_ahead():
    class Listed(list):
        """Remembers how far it was read."""

        read = 0

        def __getitem__(self, part):
            self.read = max(self.read, part.stop)
            return super().__getitem__(part)

    images = Listed([IMAGES[0]] * 30)
    parts = decoded(images, CARD.form, chunk=1)
    for given in range(3):
        next(parts)
        assert images.read <= given + 2 + MOST_THREADS
    parts.close()
