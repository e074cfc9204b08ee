"""`fewlabels predict`: decisions, neighbors, the columns of its files, and copies sorted into folders."""

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import fewlabels
from fewlabels.classify.outputs import Judgment, abstentions, said_columns, say
from fewlabels.classify.reference import NAME, Reference
from fewlabels.cli import main
from fewlabels.models.classifier import Outputs

pytestmark = [pytest.mark.versions, pytest.mark.usefixtures("undrawn")]

STEPS = 120  # seconds; enough to tell digits from noise


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Digits 0 to 7 with 10 labels a class as a folder of images; then digits that no class has, and noise."""
    folder = tmp_path_factory.mktemp("photos")
    x, y = load_digits().images, load_digits().target
    generator = np.random.default_rng(0)

    def save(pixels, name):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)

    for k in range(8):
        rows = np.flatnonzero(y == k)
        for place, row in enumerate(rows[:100]):
            save(16 * x[row] - (x[row] == 16), f"{'train/' + str(k) if place < 10 else 'train/unlabeled'}/{row}.png")
        for row in rows[100:120]:
            save(16 * x[row] - (x[row] == 16), f"new/{k}/{row}.png")
    for i in range(40):
        save(generator.integers(0, 256, (8, 8)), f"new/noise/{i}.png")
    (folder / "new/0/broken.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def run(photos):
    return fewlabels.fit(
        photos / "train", method="layermatch", steps=STEPS, baseline=False, device="cpu", threads=1, out=photos / "run"
    ).path


def predict(*words):
    return main(["predict", *map(str, words)])


def test_columns_of_a_file(run, photos, tmp_path, capsys):
    assert predict(run, photos / "new", "--out", tmp_path / "p.parquet", "--min-confidence", 0.9) == 0
    table = pq.read_table(tmp_path / "p.parquet")
    classes = [str(k) for k in range(8)]
    assert table.column_names == [
        "path", "label", "decision", "probability", "entropy", "unknown", "neighbors", "speak_for_it",
        *(f"p_{k}" for k in classes), *(f"raw_{k}" for k in classes),
    ]  # fmt: skip
    rows = table.to_pydict()
    assert len(rows["path"]) == 200
    p = np.stack([rows[f"p_{k}"] for k in classes], 1)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.stack([rows[f"raw_{k}"] for k in classes], 1).sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(rows["entropy"], -(p * np.log(np.maximum(p, 1e-30))).sum(1), atol=1e-5)
    for i, decision in enumerate(rows["decision"]):
        assert rows["label"][i] == classes[p[i].argmax()] and rows["probability"][i] == p[i].max()
        expected = "unknown" if rows["unknown"][i] else "unsure" if p[i].max() < 0.9 else rows["label"][i]
        assert decision == expected
        of_neighbors = [name.split("/")[0] for name in rows["neighbors"][i]]
        assert len(of_neighbors) == 3 and rows["speak_for_it"][i] == of_neighbors.count(rows["label"][i])
    assert "200 images, 1 set aside" in capsys.readouterr().out


def test_noise_is_unknown_and_known_digits_mostly_are_not(run, photos, tmp_path):
    assert predict(run, photos / "new", "--out", tmp_path / "p.parquet") == 0
    rows = pq.read_table(tmp_path / "p.parquet").to_pydict()
    noise = np.array(["noise" in path for path in rows["path"]])
    unknown = np.array(rows["unknown"])
    # How much of the noise depends on the last digits, so on the processor: 75 % on one, over 80 % on another.
    assert unknown[noise].mean() > 0.5 and unknown[~noise].mean() < 0.2
    assert "unsure" not in rows["decision"]
    truth = np.array([path.split("/")[-2] for path in rows["path"]])
    spoken_for = [[name.split("/")[0] for name in names] for names in rows["neighbors"]]
    right = [most == t for most, t in zip((max(set(v), key=v.count) for v in spoken_for), truth, strict=True)]
    assert np.mean(np.array(right)[~noise]) > 0.8


@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_a_file_of_the_users_own_is_not_replaced_and_one_of_predictions_is(run, photos, tmp_path, name, capsys):
    path = tmp_path / name
    path.write_text("path,label\na.png,3\n")
    assert predict(run, photos / "new/3", "--out", path) == 2
    assert f"{name} is there already, and is not what would be written" in capsys.readouterr().err
    assert path.read_text() == "path,label\na.png,3\n"
    path.unlink()
    for _ in range(2):
        assert predict(run, photos / "new/3", "--out", path) == 0


def test_csv_parts_neighbors_by_semicolons(run, photos, tmp_path):
    assert predict(run, photos / "new/3", "--out", tmp_path / "p.csv") == 0
    with open(tmp_path / "p.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    names = Reference.load(run / NAME).names
    assert len(lines) == 20
    for line in lines:
        assert set(line["neighbors"].split("; ")) <= set(names) and line["unknown"] in ("true", "false")


def test_lines_have_path_decision_and_probability(run, photos, capsys):
    assert predict(run, photos / "new/noise", "--min-confidence", 1) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 40 and {line[1] for line in lines} <= {"unsure", "unknown"}
    assert all(0 <= float(line[2]) <= 1 for line in lines)


def test_images_are_sorted_into_folders_and_the_command_goes_on(run, photos, tmp_path, capsys):
    into, words = tmp_path / "sorted", ("--min-confidence", 0.9, "--out", tmp_path / "p.parquet")
    assert predict(run, photos / "new", "--into", into, *words) == 0
    rows = pq.read_table(tmp_path / "p.parquet").to_pydict()
    expected = {
        f"{decision}/{path.removeprefix(str(photos / 'new') + '/')}"
        for path, decision in zip(rows["path"], rows["decision"], strict=True)
    }
    copies = {path.relative_to(into).as_posix(): path for path in into.rglob("*.png")}
    assert set(copies) == expected
    assert all(
        path.read_bytes() == (photos / "new" / name.partition("/")[2]).read_bytes() for name, path in copies.items()
    )
    said = capsys.readouterr().out
    assert f"{into}: 200 images, 1 set aside" in said and "(200 copied)" in said and " unknown" in said
    next(iter(copies.values())).unlink()
    assert predict(run, photos / "new", "--into", into, "--min-confidence", 0.9) == 0
    assert "(1 copied, 199 were there)" in capsys.readouterr().out
    assert {path.relative_to(into).as_posix() for path in into.rglob("*.png")} == expected


def test_images_of_one_name_from_several_places_are_all_copied(run, photos, tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "1.png").write_bytes((photos / "new/noise/0.png").read_bytes())
    assert predict(run, tmp_path / "a", tmp_path / "b", tmp_path / "b/1.png", "--into", tmp_path / "sorted") == 0
    assert sorted(path.name for path in (tmp_path / "sorted").rglob("*.png")) == ["1-2.png", "1-3.png", "1.png"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--min-confidence", 1.5], "--min-confidence is 1.5; give a probability, 0 to 1"),
        (["--min-confidence", "nan"], "give a probability"),
        (["--into", "NEW/sorted"], "lies within"),
        (["--into", "NEW"], "lies within"),
        (["--into", "NEW/../run/config.yaml/x"], "ot a directory"),
    ],
)
def test_what_cannot_be_is_said(run, photos, words, said, capsys):
    assert predict(run, photos / "new", *(str(w).replace("NEW", str(photos / "new")) for w in words)) == 2
    assert said in capsys.readouterr().err
    assert not (photos / "new/sorted").exists()


def test_a_run_without_a_reference_says_nothing_of_strangeness(run, photos, tmp_path):
    for name in ("model.safetensors", "model.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    assert predict(tmp_path, photos / "new/noise", "--out", tmp_path / "p.parquet") == 0
    columns = pq.read_table(tmp_path / "p.parquet").column_names
    assert "decision" in columns and "unknown" not in columns and "neighbors" not in columns


def test_a_run_says_of_its_own_rows_what_predict_says(run, photos, tmp_path):
    assert predict(run, photos / "train", "--out", tmp_path / "p.parquet") == 0
    own, again = (pq.read_table(path).to_pydict() for path in (run / "predictions.parquet", tmp_path / "p.parquet"))
    assert list(own)[3:] == list(again)[1:]
    at = {path.removeprefix(str(photos / "train") + "/"): i for i, path in enumerate(again["path"])}
    given = 0
    for i, path in enumerate(own["path"]):
        j = at[path]
        assert own["p_3"][i] == pytest.approx(again["p_3"][j], abs=1e-5)
        if own["source"][i] == "given":
            given += 1
            assert own["decision"][i] == own["label"][i] == path.split("/")[0] and not own["unknown"][i]
            assert path not in own["neighbors"][i] and again["neighbors"][j][0] == path
        else:
            assert own["neighbors"][i] == again["neighbors"][j] and own["unknown"][i] == again["unknown"][j]
    assert given == 80


def test_words_for_abstaining_are_no_names_of_classes():
    assert abstentions(["cat", "dog"]) == ("unsure", "unknown")
    assert abstentions(["Unsure", "unsure_", "unknown"]) == ("unsure__", "unknown_")


def test_what_is_said_is_calibrated_and_raw_stands_beside_it(small_job):
    classifier = small_job().classifier
    classifier.card = type(classifier.card)(**vars(classifier.card) | {"scale": (0.5,) * 10, "bias": (0.0,) * 10})
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    said = say(classifier, Outputs(torch.zeros(4, 16), logits))
    columns = said_columns(classifier.card.classes, said, None)
    np.testing.assert_allclose(columns["raw_3"], logits.softmax(1)[:, 3], rtol=1e-5)
    p = (logits / 2).softmax(1)
    np.testing.assert_allclose(columns["p_3"], p[:, 3], rtol=1e-5)
    np.testing.assert_allclose(columns["entropy"], -(p * p.log()).sum(1), rtol=1e-5)


def test_given_labels_are_never_unsure_and_never_unknown():
    sure = np.array([[0.6, 0.4], [0.6, 0.4], [0.75, 0.25], [0.95, 0.05]], np.float32)
    features = np.array([[1, 0], [1, 0], [1, 0], [-1, 0]], np.float32)
    said = Judgment(features, np.log(sure), sure)
    known = Reference(
        np.zeros(2, np.float32), np.eye(2, dtype=np.float32), features[:1], np.array([0]), ("x.png",), 0.5, "labeled"
    )  # fmt: skip
    columns = said_columns(("a", "b"), said, known, least=0.75, given=np.array([1, -1, -1, -1]))
    assert columns["decision"] == ["b", "unsure", "a", "unknown"] and columns["label"] == ["b", "a", "a", "a"]
    np.testing.assert_allclose(columns["probability"], [0.4, 0.6, 0.75, 0.95], rtol=1e-6)
    assert columns["neighbors"] == [["x.png"]] * 4
    assert said_columns(("a", "b"), said, known, own=np.array([0, -1, -1, -1]))["neighbors"][0] == []
    again = said_columns(("a", "b"), said, known, given=np.array([-1, -1, -1, 0]))
    assert again["decision"] == ["a", "a", "a", "a"] and not again["unknown"].any()
