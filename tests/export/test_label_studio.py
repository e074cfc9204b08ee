"""Tasks for Label Studio, and the labels that come back, in its documented formats (written by hand)."""

import csv
import json
import shutil
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest

import fewlabels
from fewlabels.cli import main
from fewlabels.data.more_labels import NewLabels, with_new_labels
from fewlabels.data.sources.open import open_table
from fewlabels.errors import UserError
from fewlabels.export.label_studio import labeling_config, read_annotations


@pytest.fixture(scope="module")
def tasks(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("label_studio") / "tasks.json"
    assert main(["export", str(run), "--label-studio", str(path)]) == 0
    return json.loads(path.read_text()), path


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_tasks_are_the_unlabeled_rows_those_to_label_next_first(run, tasks):
    found = [task["data"]["name"] for task in tasks[0]]
    unlabeled = {row["name"] for row in rows(run / "split.csv") if row["split"] == "train" and not row["label"]}
    assert len(found) == len(unlabeled) == 90 and set(found) == unlabeled
    following = [row["path"] for row in rows(run / "next_to_label.csv")]
    assert found[: len(following)] == following


def test_rows_that_are_not_listed_come_by_their_doubt(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    lines = (run / "next_to_label.csv").read_text().splitlines(keepends=True)
    (tmp_path / "run/next_to_label.csv").write_text("".join(lines[:6]))
    assert main(["export", str(tmp_path / "run"), "--label-studio", str(tmp_path / "t.json")]) == 0
    tasks = json.loads((tmp_path / "t.json").read_text())
    assert [task["data"]["name"] for task in tasks[:5]] == [row["path"] for row in rows(run / "next_to_label.csv")][:5]
    scores = [task["predictions"][0]["score"] for task in tasks[5:]]
    assert len(scores) == 85 and scores == sorted(scores)


def test_a_task_has_the_documented_form_and_the_runs_guess(run, photos, tasks):
    labels, probabilities = fewlabels.load(run).predict([photos / task["data"]["name"] for task in tasks[0]])
    for task, label, probability in zip(tasks[0], labels, probabilities.max(1), strict=True):
        (prediction,) = task["predictions"]
        assert prediction["score"] == pytest.approx(probability, abs=1e-5)
        assert prediction["model_version"] == f"fewlabels {fewlabels.__version__} run"
        choice = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [label]}}
        assert prediction["result"] == [choice]


def test_label_studio_finds_each_image_below_the_named_root(photos, tasks):
    for task in tasks[0]:
        address = urlsplit(task["data"]["image"])
        assert address.path == "/data/local-files/"
        (place,) = parse_qs(address.query)["d"]
        assert photos.parent / place == photos / task["data"]["name"] and (photos.parent / place).is_file()


def test_the_configuration_fits_the_tasks(tasks):
    config = ElementTree.parse(tasks[1].with_suffix(".xml")).getroot()
    (image,), (choices,) = config.iter("Image"), config.iter("Choices")
    assert image.get("value") == "$image" and image.get("name") == choices.get("toName") == "image"
    assert choices.get("name") == "label" and choices.get("choice") == "single"
    assert [choice.get("value") for choice in choices] == ["0", "1", "2"]


def test_classes_of_any_name_can_be_chosen():
    names = ['<b> & "co"', "it's", "öl"]
    found = ElementTree.fromstring(labeling_config(names))
    assert [choice.get("value") for choice in found.iter("Choice")] == names


def test_a_prefix_of_the_users_own(run, tmp_path, capsys):
    words = ["export", str(run), "--label-studio", str(tmp_path / "t.json"), "--url-prefix", "https://a.b/x/"]
    assert main(words) == 0
    assert "https://a.b/x/unlabeled/" in capsys.readouterr().out
    for task in json.loads((tmp_path / "t.json").read_text()):
        assert unquote(task["data"]["image"]) == f"https://a.b/x/{task['data']['name']}"
        assert " " not in task["data"]["image"] and "&" not in task["data"]["image"]


def test_images_of_another_folder_and_of_none(run, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photos, "pets/photos")
    shutil.move("pets/photos/unlabeled", "more")
    options = {"steps": 2, "baseline": False, "device": "cpu", "threads": 1, "images_size": 16, "model": "small_cnn"}
    fewlabels.fit("pets/photos", unlabeled="more", method="fixmatch", out="here", **options)
    assert main(["export", "here", "--label-studio", "t.json"]) == 0
    assert f"DOCUMENT_ROOT={tmp_path.parent} and the local storage {tmp_path}" in capsys.readouterr().out
    for task in json.loads(Path("t.json").read_text()):
        (place,) = parse_qs(urlsplit(task["data"]["image"]).query)["d"]
        assert (tmp_path.parent / place).is_file() and Path(task["data"]["name"]).parts[0] == "more"
    shutil.rmtree("more")
    assert main(["export", "here", "--label-studio", "t.json"]) == 2
    assert "images that are no files here: 90 of 90, such as more/" in capsys.readouterr().err
    x = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    fewlabels.fit((x, np.arange(12) % 3 - 1), method="supervised", out="arrays", **options)
    assert main(["export", "arrays", "--label-studio", "t.json"]) == 2
    assert "images that are no files here: 4 of 4, such as x[9] of arrays. Give --url-prefix" in capsys.readouterr().err


def task(number, name, *annotations):
    """A task as Label Studio's export in JSON has it."""
    return {
        "id": number,
        "annotations": [
            {
                "id": 100 * number + place,
                "completed_by": 1,
                "result": [
                    {
                        "value": {"choices": chosen},
                        "id": "Zx3kQ0mJ1a",
                        "from_name": "label",
                        "to_name": "image",
                        "type": "choices",
                        "origin": "manual",
                    }
                ]
                if chosen
                else [],
                "was_cancelled": cancelled,
                "ground_truth": False,
                "created_at": "2026-03-09T22:16:08.728353Z",
                "updated_at": "2026-03-09T22:16:08.728378Z",
                "draft_created_at": None,
                "lead_time": 4.288,
                "prediction": {},
                "result_count": 0,
                "task": number,
                "parent_prediction": None,
                "parent_annotation": None,
            }
            for place, (chosen, cancelled) in enumerate(annotations)
        ],
        "file_upload": "1f2e3d4c-tasks.json",
        "drafts": [],
        "predictions": [number],
        "data": {"image": f"/data/local-files/?d=photos/{name}", "name": name},
        "meta": {},
        "created_at": "2026-03-09T21:52:49.513742Z",
        "updated_at": "2026-03-09T22:16:08.746926Z",
        "project": 83,
    }


def item(number, name, choice, **more):
    """An item as JSON_MIN has it: one for each annotation."""
    said = {} if choice is None else {"label": choice}
    return {
        "image": f"/data/local-files/?d=photos/{name}",
        "name": name,
        "id": number,
        **said,
        "annotator": 1,
        "annotation_id": 100 * number,
        "created_at": "2026-03-09T22:16:08.728353Z",
        "updated_at": "2026-03-09T22:16:08.728378Z",
        "lead_time": 4.288,
        **more,
    }


def written(tmp_path, tasks):
    path = tmp_path / "project-1.json"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return path


CAT, DOG = (["cat"], False), (["dog"], False)


def test_json_gives_labels_but_of_what_was_cancelled_or_skipped(tmp_path):
    box = {"type": "rectanglelabels", "from_name": "box", "to_name": "image", "value": {"rectanglelabels": ["tail"]}}
    with_box = task(7, "g.jpg", DOG)
    with_box["annotations"][0]["result"].append(box)
    tasks = [
        task(1, "a.jpg", CAT),
        task(2, "ö & b.jpg", DOG, DOG),
        task(3, "c.jpg", (["cat"], True)),
        task(4, "d.jpg", (["cat"], True), DOG),
        task(5, "e.jpg"),
        task(6, "f.jpg", ([], False)),
        with_box,
    ]
    labels, contested = read_annotations(written(tmp_path, tasks))
    assert labels == {"a.jpg": "cat", "ö & b.jpg": "dog", "d.jpg": "dog", "g.jpg": "dog"}
    assert not contested


def test_json_min_gives_the_same(tmp_path):
    tasks = [
        item(1, "a.jpg", "cat"),
        item(2, "b.jpg", "dog", agreement=100.0),
        item(2, "b.jpg", "dog", annotation_id=201),
        item(3, "c.jpg", None, annotation_id=None),
    ]
    assert read_annotations(written(tmp_path, tasks)) == ({"a.jpg": "cat", "b.jpg": "dog"}, {})


@pytest.mark.parametrize(
    "tasks",
    [
        [task(1, "a.jpg", CAT, DOG), task(2, "b.jpg", DOG), task(3, "c.jpg", (["cat", "dog"], False))],
        [task(1, "a.jpg", CAT), task(9, "a.jpg", DOG), task(2, "b.jpg", DOG), task(3, "c.jpg", CAT, CAT, DOG)],
        [
            item(1, "a.jpg", "cat"),
            item(1, "a.jpg", "dog"),
            item(2, "b.jpg", "dog"),
            item(3, "c.jpg", {"choices": ["cat", "dog"]}),
        ],
    ],
)
def test_labels_that_disagree_are_named_and_not_taken(tmp_path, tasks):
    both = ["cat", "dog"]
    new = read_annotations(written(tmp_path, tasks))
    assert new == ({"b.jpg": "dog"}, {"a.jpg": both, "c.jpg": both})
    y = np.array([0, 1, -1, -1, -1])
    table = open_table({"x": np.zeros((5, 2, 2), np.uint8), "y": y, "classes": ["cat", "dog"]})
    names = dict(zip(("a.jpg", "b.jpg", "c.jpg"), table.names[2:], strict=True))
    renamed = NewLabels(*({names[name]: value for name, value in each.items()} for each in new))
    more = with_new_labels(table, renamed, "export.json")
    assert more.labels.tolist() == [0, 1, -1, 1, -1]
    said = f"left out of export.json, labeled differently: {names['a.jpg']} as cat and dog, {names['c.jpg']} as cat"
    assert said in more.notes[-1]


def test_the_tasks_of_a_run_come_back_to_its_rows(run, tasks, tmp_path):
    """As Label Studio does it: the data stays, the prediction that was accepted becomes an annotation."""
    accepted = []
    for number, made in enumerate(tasks[0], 1):
        (result,) = made["predictions"][0]["result"]
        accepted.append(task(number, "", (result["value"]["choices"], False)) | {"data": made["data"]})
    labels, _ = read_annotations(written(tmp_path, accepted))
    names = {row["name"] for row in rows(run / "split.csv")}
    assert len(labels) == 90 and set(labels) <= names and set(labels.values()) <= {"0", "1", "2"}
    assert read_annotations(written(tmp_path, tasks[0])) == ({}, {})  # guesses are no labels


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{", "cannot be read as JSON"),
        ("{}", "no list of tasks"),
        ("[1]", "no list of tasks"),
        ('[{"path": "a.jpg", "label": "cat"}]', "no list of tasks"),
        ('[{"data": {"image": "a"}, "annotations": {}}]', "no list of tasks"),
        (json.dumps([task(4, "a.jpg", CAT) | {"data": {"image": "a.jpg"}}]), "task 4 has no 'name'"),
        ('[{"id": 5, "data": {"name": "a"}, "annotations": [1]}]', "task 5 is damaged"),
        ('[{"image": "a", "name": "a", "label": 3}]', "task 1 is damaged"),
        ('[{"image": "a", "name": "a", "label": {"choices": [["cat"]]}}]', "a class is no text"),
    ],
)
def test_other_files_are_refused(tmp_path, text, said):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=said):
        read_annotations(tmp_path / "a.json")


def test_no_file_and_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    for name in ("a.json", "b.json"):
        with pytest.raises(UserError, match="cannot be read as JSON"):
            read_annotations(tmp_path / name)


def test_annotations_are_not_replaced_by_tasks(run, tasks, tmp_path, capsys):
    path = tmp_path / "project.json"
    path.write_text(json.dumps([task(1, "a.jpg", CAT)]))
    assert main(["export", str(run), "--label-studio", str(path)]) == 2
    assert "is not what would be written" in capsys.readouterr().err
    assert read_annotations(path).agreed == {"a.jpg": "cat"}
    path.write_text(json.dumps(tasks[0]))
    assert main(["export", str(run), "--label-studio", str(path)]) == 0


def test_vectors_are_no_tasks(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    card = json.loads((run / "model.json").read_text())
    card |= {"model": "mlp", "form": {"dimensions": 3, "columns": []}, "mean": [0] * 3, "std": [1] * 3}
    (tmp_path / "run/model.json").write_text(json.dumps(card))
    assert main(["export", str(tmp_path / "run"), "--label-studio", str(tmp_path / "t.json")]) == 2
    assert "Label Studio shows images" in capsys.readouterr().err


def test_another_suffix_is_refused(run, tmp_path, capsys):
    assert main(["export", str(run), "--label-studio", str(tmp_path / "t.csv")]) == 2
    assert "ends in .csv; give a name that ends in .json" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
