"""How many images go through a network at a time."""

import numpy as np
import pytest
import torch

from fewlabels.errors import UserError
from fewlabels.inputs.base import CHUNK
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.store import MOST_THREADS, ResidentImages, decoded
from fewlabels.keys import Key
from fewlabels.models.build import build_classifier
from fewlabels.models.classifier import Card

CARD = Card("small_cnn", ("a", "b"), ImageForm(1, (8, 8)), (0.5,), (0.5,))
IMAGES = np.random.default_rng(0).integers(0, 256, (2 * CHUNK + 70, 8, 8), np.uint8)


@pytest.mark.parametrize("batch", [0, -3, "auto", None, 2.5, True])
def test_a_batch_is_one_image_at_least(batch):
    with pytest.raises(UserError, match="give a whole number, at least 1"):
        build_classifier(CARD, key=Key(0)).predict(IMAGES[:2], batch)


@pytest.mark.parametrize(("batch", "sizes"), [(512, {512, 70}), (100, {100, 56, 70})])
def test_a_given_batch_is_what_goes_through_the_network(batch, sizes):
    classifier, seen = build_classifier(CARD, key=Key(0)).eval(), set()
    classifier.backbone.register_forward_pre_hook(lambda _, given: seen.add(len(given[0])))
    list(classifier.classified(list(IMAGES), batch))
    assert seen == sizes


def with_room_for(most):
    """Make a classifier whose memory has room for so many images, and give the numbers that it was tried with."""
    classifier, tried = build_classifier(CARD, key=Key(0)).eval(), []

    def check(_, given):
        tried.append(len(given[0]))
        if len(given[0]) > most:
            raise torch.OutOfMemoryError("no room")

    classifier.backbone.register_forward_pre_hook(check)
    return classifier, tried


def test_out_of_memory_the_batch_is_halved_and_stays_so_for_later_parts():
    classifier, tried = with_room_for(100)
    whole = build_classifier(CARD, key=Key(0)).predict(IMAGES)[1]
    assert np.allclose(classifier.predict(list(IMAGES), 256)[1], whole, rtol=1e-5, atol=1e-6)
    assert tried == [256, 128, *[64] * 9, 6]
    assert classifier.predict(IMAGES[:2])[1].shape == (2, 2)


def test_out_of_memory_with_one_image_is_an_error():
    classifier, tried = with_room_for(0)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        classifier.predict(IMAGES[:4], 4)
    assert tried == [4, 2, 1]


@pytest.mark.parametrize("batch", [1, 100, 256])
def test_parts_of_any_size_give_what_the_whole_gives(batch):
    classifier = build_classifier(CARD, key=Key(0)).eval()
    pixels = torch.from_numpy(IMAGES[:, None])
    whole = classifier.probabilities(ResidentImages(pixels), np.arange(len(pixels)), len(pixels))
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
