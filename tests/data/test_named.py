"""Sets known by name: files in the published forms give pixels and labels; nothing unchecked is unpickled."""

import gzip
import hashlib
import os
import pickle
import socket
import struct

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from fewlabels.data.sources.named import NAMES, open_named
from fewlabels.data.sources.open import open_table
from fewlabels.errors import UserError
from fewlabels.inputs.images.decode import ImageForm, decode

RNG = np.random.default_rng(0)
TORCHVISION = [name for name in NAMES if name != "digits"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        pytest.fail("a network access")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def pixels_of(table, channels, side):
    return np.stack([decode(image, ImageForm(channels, (side, side))) for image in table.contents])


def refused(name, root, *said):
    with pytest.raises(UserError) as error:
        open_named(name, root)
    for part in (name, "--root", "nothing is downloaded", *said):
        assert part in str(error.value)


# --- CIFAR ---


CIFAR = {
    "cifar10": (datasets.CIFAR10, "labels", "label_names", ["plane", "bird"]),
    "cifar100": (datasets.CIFAR100, "fine_labels", "fine_label_names", ["apple", "bear"]),
}


def write_cifar(name, root, monkeypatch):
    """Write two images a batch; give the pixels [n, 32, 32, 3] in order."""
    kind, key, names_key, names = CIFAR[name]
    folder, pixels = root / kind.base_folder, []
    for list_name in ("train_list", "test_list"):
        sums = []
        for file, _ in getattr(kind, list_name):
            pixels.append(RNG.integers(0, 256, (2, 32, 32, 3), np.uint8))
            batch = {"data": pixels[-1].transpose(0, 3, 1, 2).reshape(2, -1), key: [0, 1]}
            sums.append([file, md5(write(folder / file, pickle.dumps(batch)))])
        monkeypatch.setattr(kind, list_name, sums)
    meta = write(folder / kind.meta["filename"], pickle.dumps({names_key: names}))
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(meta)})
    return np.concatenate(pixels)


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_gives_its_pixels_labels_and_splits(tmp_path, monkeypatch, name):
    pixels = write_cifar(name, tmp_path, monkeypatch)
    table = open_table(name, root=tmp_path)
    assert (table.name, table.classes) == (name, tuple(CIFAR[name][3]))
    assert np.array_equal(pixels_of(table, 3, 32), pixels)
    assert table.labels.tolist() == [0, 1] * (len(pixels) // 2)
    assert table.test.tolist() == [False] * (len(pixels) - 2) + [True] * 2
    assert (table.names[1], table.names[-1]) == ("train[1]", "test[1]")


class Trap:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_the_trap_would_spring(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", CIFAR)
@pytest.mark.parametrize("part", ["train", "test", "meta"])
def test_a_pickle_of_another_sum_is_never_unpickled(tmp_path, monkeypatch, name, part):
    write_cifar(name, tmp_path, monkeypatch)
    kind = CIFAR[name][0]
    file = {"train": kind.train_list[0][0], "test": kind.test_list[0][0], "meta": kind.meta["filename"]}[part]
    write(tmp_path / kind.base_folder / file, pickle.dumps(Trap(tmp_path / "sprung")))
    refused(name, tmp_path, f"{file} is damaged", "MD5", f"{kind.base_folder}/ unpacked from")
    assert not (tmp_path / "sprung").exists()


# --- SVHN ---


def write_svhn(root, monkeypatch):
    pixels, sums = [], dict(datasets.SVHN.split_list)
    for part in ("train", "test"):
        pixels.append(RNG.integers(0, 256, (3, 32, 32, 3), np.uint8))
        path = root / f"{part}_32x32.mat"
        scipy.io.savemat(path, {"X": pixels[-1].transpose(1, 2, 3, 0), "y": np.array([[10], [1], [9]], np.uint8)})
        sums[part] = [*sums[part][:2], md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", sums)
    return np.concatenate(pixels)


def test_svhn_gives_ten_as_zero(tmp_path, monkeypatch):
    pixels = write_svhn(tmp_path, monkeypatch)
    table = open_named("svhn", tmp_path)
    assert table.classes == tuple("0123456789")
    assert table.labels.tolist() == [0, 1, 9] * 2
    assert table.test.tolist() == [False] * 3 + [True] * 3
    assert np.array_equal(pixels_of(table, 3, 32), pixels)


# --- STL-10 ---


def write_stl10(root, monkeypatch):
    pixels, folder = [], root / "stl10_binary"
    for part, labels in (("train", [1, 10]), ("test", [2]), ("unlabeled", None)):
        pixels.append(RNG.integers(0, 256, (len(labels or [0, 0, 0]), 96, 96, 3), np.uint8))
        write(folder / f"{part}_X.bin", pixels[-1].transpose(0, 3, 2, 1).tobytes())
        if labels:
            write(folder / f"{part}_y.bin", bytes(labels))
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(
            datasets.STL10, name, [[file, md5(folder / file)] for file, _ in getattr(datasets.STL10, name)]
        )
    return np.concatenate(pixels)


def test_stl10_gives_its_unlabeled_part(tmp_path, monkeypatch):
    pixels = write_stl10(tmp_path, monkeypatch)
    table = open_named("stl10", tmp_path)
    assert table.labels.tolist() == [0, 9, 1, -1, -1, -1]
    assert table.test.tolist() == [False, False, True, False, False, False]
    assert (table.names[-1], table.classes[0], table.classes[9]) == ("unlabeled[2]", "airplane", "truck")
    assert np.array_equal(pixels_of(table, 3, 96), pixels)


def test_stl10_equals_torchvisions(tmp_path, monkeypatch):
    write_stl10(tmp_path, monkeypatch)
    table = open_named("stl10", tmp_path)
    image, label = datasets.STL10(tmp_path, split="train")[1]
    assert np.array_equal(np.asarray(image), table.contents[1])
    assert label == table.labels[1]


# --- Fashion-MNIST ---


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion(root, monkeypatch, packed):
    pixels, sums = [], []
    for part in ("train", "t10k"):
        pixels.append(RNG.integers(0, 256, (2, 28, 28), np.uint8))
        for name, array in (("images-idx3", pixels[-1]), ("labels-idx1", np.array([9, 0], np.uint8))):
            path = root / "FashionMNIST/raw" / f"{part}-{name}-ubyte{'.gz' * packed}"
            write(path, gzip.compress(idx(array)) if packed else idx(array))
            sums.append([f"{part}-{name}-ubyte.gz", md5(path)])
    monkeypatch.setattr(datasets.FashionMNIST, "resources", sums)
    return np.concatenate(pixels)


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
def test_fashion_mnist_gives_its_pixels_packed_or_not(tmp_path, monkeypatch, packed):
    pixels = write_fashion(tmp_path, monkeypatch, packed)
    table = open_named("fashion_mnist", tmp_path)
    assert np.array_equal(pixels_of(table, 1, 28)[..., 0], pixels)
    assert table.labels.tolist() == [9, 0, 9, 0]
    assert table.test.tolist() == [False, False, True, True]
    assert (table.classes[9], len(table.classes)) == ("Ankle boot", 10)


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:5], lambda c: b"", lambda c: b"\1" + c[1:]])
def test_a_damaged_idx_file_is_named(tmp_path, monkeypatch, damage):
    write_fashion(tmp_path, monkeypatch, packed=False)
    path = tmp_path / "FashionMNIST/raw/t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    refused("fashion_mnist", tmp_path, path.name, "FashionMNIST/raw/")


def test_a_damaged_packed_file_is_named(tmp_path, monkeypatch):
    write_fashion(tmp_path, monkeypatch, packed=True)
    path = tmp_path / "FashionMNIST/raw/train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-4])
    refused("fashion_mnist", tmp_path, f"{path} is damaged")


def test_as_many_labels_as_images_are_wanted(tmp_path, monkeypatch):
    write_fashion(tmp_path, monkeypatch, packed=False)
    path = tmp_path / "FashionMNIST/raw/train-labels-idx1-ubyte"
    path.write_bytes(idx(np.zeros(3, np.uint8)))
    refused("fashion_mnist", tmp_path, "2 images and 3 labels")


# --- EuroSAT ---


def test_eurosat_is_its_folder(tmp_path):
    for name in ("Forest", "River"):
        path = tmp_path / "eurosat/2750" / name / f"{name}_1.jpg"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(path)
    table = open_named("eurosat", tmp_path)
    assert (table.name, table.classes, table.labels.tolist()) == ("eurosat", ("Forest", "River"), [0, 1])
    assert any("27,000" in note for note in table.notes)


# --- all ---

WANTED = {
    "cifar10": "cifar-10-batches-py/ unpacked from cifar-10-python.tar.gz",
    "cifar100": "cifar-100-python/ unpacked from cifar-100-python.tar.gz",
    "svhn": "train_32x32.mat and test_32x32.mat",
    "stl10": "stl10_binary/",
    "fashion_mnist": "FashionMNIST/raw",
    "eurosat": "eurosat/2750/",
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_missing_set_says_which_files_go_where(tmp_path, name):
    refused(name, tmp_path, WANTED[name], str(tmp_path))


@pytest.mark.parametrize("name", TORCHVISION)
def test_without_a_root_sets_lie_in_data(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refused(name, None, "into data/")


@pytest.mark.parametrize(("name", "file"), [("svhn", "test_32x32.mat"), ("stl10", "stl10_binary/unlabeled_X.bin")])
def test_one_missing_or_damaged_file_is_named(tmp_path, monkeypatch, name, file):
    {"svhn": write_svhn, "stl10": write_stl10}[name](tmp_path, monkeypatch)
    (tmp_path / file).write_bytes(b"cut")
    refused(name, tmp_path, f"{tmp_path / file} is damaged")
    (tmp_path / file).unlink()
    refused(name, tmp_path, f"{tmp_path / file} is missing")


def test_digits_need_no_root(tmp_path):
    assert len(open_named("digits", None)) == len(open_table("digits", root=tmp_path)) == 1797


def test_an_unknown_name_gets_the_known_ones():
    with pytest.raises(UserError, match=r"cifar10.*digits"):
        open_named("imagenet", None)


@pytest.mark.parametrize("data", ["CIFAR10", "cifar-10", "fashionmnist"])
def test_a_misspelled_name_gets_the_nearest(data):
    with pytest.raises(UserError, match=r"Did you mean (cifar10|fashion_mnist)"):
        open_table(data)


def test_a_folder_of_a_sets_name_is_hinted_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "svhn").mkdir()
    refused("svhn", None, "./svhn")


def test_a_root_for_other_data_is_refused(tmp_path):
    for data in ((np.zeros((2, 4, 4), np.uint8), [0, 1]), tmp_path):
        with pytest.raises(UserError, match="root"):
            open_table(data, root=tmp_path)
