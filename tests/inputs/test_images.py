"""The views that a method asks for: draws of their own, normalized, without a read to the host."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fewlabels.inputs.images import operations
from fewlabels.inputs.images.views import ImageViews, Normalize
from fewlabels.keys import Key

quick = settings(deadline=None, max_examples=30)
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
ALL = ("weak", "weak", "strong", "strong")
normalize = Normalize(MEAN, STD)


def views(channels=3, **options):
    return ImageViews(MEAN[:channels], STD[:channels], **options)


def keys(n, *parts):
    return Key(1).fold(*parts).fold(torch.arange(n))


def noise(n, channels=3, height=8, width=8, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (n, channels, height, width), dtype=np.uint8)
    return torch.from_numpy(values)


def same_images(first, second):
    """Tell for each image [n] whether it is seen alike twice."""
    return (first == second).flatten(1).all(1)


# --- numbers ---------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 3), st.integers(0, 5), st.integers(0, 2**32))
def test_normalize_gives_pixels_the_mean_and_deviation(channels, n, seed):
    images = noise(n, channels, 3, 4, seed)
    mean, std = (np.array(values[:channels]).reshape(1, -1, 1, 1) for values in (MEAN, STD))
    normal = Normalize(MEAN[:channels], STD[:channels])(images)
    assert normal.dtype == torch.float32
    np.testing.assert_allclose(normal, (images.numpy() / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def test_the_channels_of_a_normalized_batch_come_last_in_memory():
    assert normalize(noise(4)).is_contiguous(memory_format=torch.channels_last)


def test_views_are_normalized():
    images = noise(5, 3, 1, 1)  # which weak views leave as they are
    (weak,) = views(flip="dihedral").make(images, ("weak",), keys(5))
    assert torch.equal(weak, normalize(images))


def test_a_strong_view_without_operations_is_a_weak_one_with_a_hole():
    images = torch.full((40, 3, 16, 16), 200, dtype=torch.uint8)
    (strong,) = views(operations=0).make(images, ("strong",), keys(40))
    whole, hole = normalize(images), normalize(torch.full_like(images, 127))
    assert ((strong == whole) | (strong == hole)).all()
    assert (strong == whole).any()
    assert (strong == hole)[:, 0].any(1).sum(1).max() == 8  # the widest of 40 holes: half the side


@pytest.mark.parametrize(
    ("flip", "mirrored", "turned"), [("none", 0, 0), ("horizontal", 1 / 2, 0), ("dihedral", 1 / 2, 1 / 2)]
)
def test_all_views_are_flipped_as_told(flip, mirrored, turned):
    images = torch.zeros(400, 3, 16, 16, dtype=torch.uint8)
    images[..., 4:] += 50
    images[..., 8:, :] += 100  # the rows differ more than the columns, unless the image is transposed
    for view in views(operations=0, flip=flip).make(images, ("weak", "strong"), keys(400)):
        left, right = view[..., :2].mean((1, 2, 3)), view[..., -2:].mean((1, 2, 3))
        top, bottom = view[..., :2, :].mean((1, 2, 3)), view[..., -2:, :].mean((1, 2, 3))
        assert (left > right).float().mean() == pytest.approx(mirrored, abs=0.1)
        assert ((left - right).abs() > (top - bottom).abs()).float().mean() == pytest.approx(turned, abs=0.1)


def test_a_strong_view_is_shifted_as_a_weak_one():
    images = noise(100, height=16, width=16) // 3  # without a pixel of the hole's gray
    (strong,) = views(operations=0).make(images, ("strong",), keys(100))
    whole, hole = normalize(images), normalize(torch.full_like(images, 127))
    unmoved = ((strong == whole) | (strong == hole)).flatten(1).all(1)
    assert unmoved.float().mean() < 0.15  # 25 shifts


def test_more_operations_change_more_images():
    images = torch.from_numpy(np.tile(np.arange(64, dtype=np.uint8).reshape(8, 8), (300, 3, 1, 1)))
    unchanged = []
    for count in (0, 1, 4):
        (strong,) = views(operations=count).make(images, ("strong",), keys(300))
        (holes,) = views(operations=0).make(images, ("strong",), keys(300))
        unchanged.append(same_images(strong, holes).float().mean())
    assert unchanged[0] == 1 > unchanged[1] > unchanged[2]


# --- draws -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", ["none", "horizontal", "dihedral"])
def test_all_views_of_one_call_differ(flip):
    seen = views(flip=flip).make(noise(100, height=32, width=32), ALL, keys(100))
    for i in range(len(ALL)):
        for j in range(i):
            assert same_images(seen[i], seen[j]).float().mean() < 0.1


@pytest.mark.parametrize("kind", ["weak", "strong"])
@pytest.mark.parametrize(("first", "second"), [(("labeled",), ("unlabeled",)), ((0, 3), (0, 4)), ((0, 3), (1, 3))])
def test_streams_steps_and_branches_see_one_image_differently(kind, first, second):
    images = noise(100, height=32, width=32)
    (one,) = views().make(images, (kind,), keys(100, *first))
    (other,) = views().make(images, (kind,), keys(100, *second))
    assert same_images(one, other).float().mean() < 0.1


def test_a_view_does_not_depend_on_what_else_is_asked_for():
    images = noise(20)
    seen = views().make(images, ALL, keys(20))
    for count in range(len(ALL)):
        for alone, together in zip(views().make(images, ALL[:count], keys(20)), seen, strict=False):
            assert torch.equal(alone, together)


def test_the_shares_of_two_processes_are_the_whole():
    images, key = noise(21), keys(21)
    whole = views(flip="dihedral").make(images, ALL, key)
    first = views(flip="dihedral").make(images[:10], ALL, Key(key.state[:10]))
    second = views(flip="dihedral").make(images[10:], ALL, Key(key.state[10:]))
    for all_rows, *shares in zip(whole, first, second, strict=True):
        assert torch.equal(all_rows, torch.cat(shares))


def test_the_frameworks_generator_is_neither_read_nor_moved():
    images = noise(20)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = views().make(images, ALL, keys(20))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    for one, other in zip(first, views().make(images, ALL, keys(20)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (0, 1, 1, 1), (3, 1, 1, 1), (3, 3, 2, 3), (3, 1, 28, 28)])
def test_small_and_empty_batches_give_views_of_their_shape(shape):
    seen = views(shape[1], flip="dihedral").make(noise(*shape), ALL, keys(shape[0]))
    assert [view.shape for view in seen] == [shape] * len(ALL)
    assert all(view.dtype == torch.float32 and view.isfinite().all() for view in seen)


# --- the device never waits ------------------------------------------------------------------------------


class WatchedDevice(TorchDispatchMode):
    """Refuse what makes a device wait for the host, and record each operation with its shapes."""

    reads = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal")

    def __init__(self, refuse_constants=False):
        super().__init__()
        # torch.tensor([...]) on a device is a copy from pageable memory, which waits for the device.
        self.refused = (*self.reads, "lift_fresh") if refuse_constants else self.reads
        self.record = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in self.refused or (name in ("index", "index_put", "index_put_") and self._by_bools(args[1])):
            raise AssertionError(f"{function} makes the device wait")
        result = function(*args, **(kwargs or {}))
        self.record.append((str(function), getattr(result, "shape", None)))
        return result

    @staticmethod
    def _by_bools(indices):
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


READS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x[0] > 1),
    "boolean index": lambda x: x[x > 1],
    "boolean index_put": lambda x: x.index_put((x > 1,), x[0]),
    "masked_select": lambda x: x.masked_select(x > 1),
    "nonzero": lambda x: (x > 1).nonzero(),
    "where": lambda x: torch.where(x > 1),
    "equal": lambda x: torch.equal(x, x + 1),
}


@pytest.mark.parametrize("read", READS)
def test_the_watch_sees_reads(read):
    with pytest.raises(AssertionError, match="wait"), WatchedDevice():
        READS[read](torch.arange(4))


@quick
@given(st.integers(1, 3), st.integers(0, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_views_are_the_same_where_every_form_is_computed_for_every_image(channels, n, side, seed):
    images, key = noise(n, channels, side, 8, seed), keys(n, seed)
    some = views(channels, operations=4).make(images, ALL, key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operations, "shapes_may_depend_on_values", lambda device: False)
        every = views(channels, operations=4).make(images, ALL, key)
    for one, other in zip(some, every, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("flip", ["none", "horizontal", "dihedral"])
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 8, 8), (1, 8, 8), (3, 5, 7), (1, 1, 1)])
def test_views_are_made_without_a_read_to_the_host(flip, channels, height, width, as_on_a_gpu):
    images, key = noise(6, channels, height, width), keys(6)
    with WatchedDevice():
        views(channels, flip=flip).make(images, ALL, key)


def test_views_are_made_of_images_without_data():
    """A meta tensor has a shape and no values, so whatever needs a value fails: `tolist` and `numpy` too."""
    seen = views(flip="dihedral").to("meta").make(noise(6).to("meta"), ALL, Key(keys(6).state.to("meta")))
    assert [view.shape for view in seen] == [(6, 3, 8, 8)] * len(ALL)


def test_views_are_made_by_the_same_operations_and_shapes_whatever_the_images_and_keys_hold(as_on_a_gpu):
    records = []
    for images, key in ((noise(6), keys(6)), (torch.zeros_like(noise(6)), keys(6, "other"))):
        made = views()
        with WatchedDevice() as device:
            made.make(images, ALL, key)
        records.append(device.record)
    assert records[0] == records[1]


def test_views_copy_no_constants_from_the_host(as_on_a_gpu):
    images, key, made = noise(6), keys(6), views()
    with WatchedDevice(refuse_constants=True):
        made.make(images, ALL, key)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_views_of_the_cpu_without_waiting():
    images, key = noise(64, height=32, width=32), keys(64)
    made = views(flip="dihedral")
    here = made.make(images, ALL, key)
    images, key, made = images.cuda(), Key(key.state.cuda()), made.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = made.make(images, ALL, key)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(here, there, strict=True):
        # Its sines and cosines may send a pixel to its neighbour.
        assert ((one - other.cpu()).abs() > 1e-5).float().mean() < 0.005


def test_a_medium_view_lies_between_the_others():
    """One operation and no hole; and what else is asked for changes none of them."""
    images = noise(200, 1, 12, 12)
    views = ImageViews((0.5,), (0.25,))
    key = Key(3).fold(torch.arange(200))
    weak, medium, strong = views.make(images, ("weak", "medium", "strong"), key)
    assert torch.equal(views.make(images, ("weak", "medium"), key)[1], medium)
    plain = views.make(images, ("weak", "weak"), key)[1]  # the medium view before its operation
    assert 0.5 < (medium != plain).flatten(1).any(1).float().mean() < 1  # some operations change nothing
    heavy = ImageViews((0.5,), (0.25,), operations=1).make(images, ("weak", "strong"), key)[1]
    assert not torch.equal(heavy, medium)  # it has a hole
    assert not torch.equal(weak, medium) and not torch.equal(strong, medium)
