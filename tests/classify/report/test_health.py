"""Health checks: each warns of its trouble, and a healthy run gets no warning."""

import re
from dataclasses import replace

import numpy as np
import pytest

from fewlabels.classify.reference import Suspects
from fewlabels.classify.report.findings import Findings
from fewlabels.classify.report.health import warnings_of
from fewlabels.cli import Command, Train, _parse
from fewlabels.data.sources.open import from_arrays
from fewlabels.inputs.kinds import IMAGES
from fewlabels.methods import method_names
from tests.conftest import rows_of

K, ROWS = 4, 400


def findings_of(predicted, truth=None, sure=0.9, labeled=4):
    """Make a run of one-pixel rows: `labeled` of each class, then unlabeled ones with these predictions."""
    predicted = rows_of(predicted)
    known = np.arange(labeled * K) % K
    labels = np.concatenate([known, np.full(len(predicted), -1)])
    table = from_arrays({"x": np.zeros((len(labels), 1, 1), np.uint8), "y": labels, "classes": list("abcd")}, "data")
    if truth is not None:
        table = replace(table, truth=np.concatenate([np.full(len(known), -1), truth]))
    p = np.full((len(labels), K), 0.0, np.float32)
    p[np.arange(len(p)), np.concatenate([known, predicted])] = sure
    p += (1 - p.sum(1, keepdims=True)) / K
    return Findings(table, IMAGES, None, p, p, np.zeros(len(p), bool), Suspects(rows_of([]), rows_of([])), rows_of([]))


def row_of(name, accuracy, label=None, kind="training_free"):
    """Make a row of a summary, of which no check may take another metric for the accuracy on the test split."""
    test = {"accuracy": accuracy, "balanced_accuracy": 0.01, "macro_f1": 0.99}
    hidden = dict.fromkeys(test, 0.02)
    scores = {"test": None if accuracy is None else test, "hidden": hidden}
    return {"name": name, "label": label or name, "kind": kind, **scores, "seconds": 1.0, "added": None}


def summary_of(accuracy=0.8, **changes):
    ours = row_of("fixmatch", 0.8, kind="method")
    summary = {
        "method": "fixmatch", "model": "small_cnn", "labeled": 16, "unlabeled": ROWS, "test": 400,
        "gain": {"value": 0.1, "standard_error": 0.02, "clear": True}, "set_aside": 0,
        "gain_over_training_free": None,
        "chosen": {**row_of("fixmatch", accuracy), "why": None, "margin": None, "cross_validated": None},
        "rows": [row_of("knn", 0.7, "nearest neighbors on pixels"), ours],
    }  # fmt: skip
    return summary | changes


FALLING = tuple(np.geomspace(2, 0.01, 20))


def lines_of(kept=(0.5,) * 20, labeled_loss=FALLING):
    loss = [{"labeled_loss": value, "unlabeled_loss": 3.0, "loss": 3 + value} for value in labeled_loss]
    return [{"step": 5 * i + 5, "kept": k} | at for i, (k, at) in enumerate(zip(kept, loss, strict=True))]


EVEN = np.arange(ROWS) % K


def reliability_of(confidence, accuracy, rows, low):
    found = {"confidence": [confidence], "accuracy": [accuracy], "counts": [rows], "ece": abs(confidence - accuracy)}
    return {"calibration": {"kind": "none", "calibrated": found | {"low": low, "high": 1.0}}}


def one(id_, summary=None, lines=None, findings=None):
    """Check that there is this one warning, and that what it says to try can be tried; return its text."""
    found = warnings_of(summary or summary_of(), lines or lines_of(), findings or findings_of(EVEN, EVEN))
    assert [warning["id"] for warning in found] == [id_]
    assert found[0]["severity"] == ("low" if id_ in LOW else "high")
    commands = re.findall(r"`([^`]+)`", found[0]["text"])
    assert commands or id_ in ("many_unknown", "few_test_rows")  # there images are to be looked at, or labeled
    for command in commands:
        can_be_tried(command)
    return found[0]["text"]


# The result may be good, and what is said of it is not to be relied on.
LOW = ("probabilities_off", "many_unknown", "many_quarantined", "few_test_rows")


def can_be_tried(command):
    """Check that the command line takes these words; options stand alone where they are those of `fewlabels train`."""
    words = command.split()
    if words[0] == "fewlabels":
        words = [words[1], *({"next": ["RUN"], "bench": ["DATA", "--methods", "fixmatch"]}.get(words[1], words[2:]))]
    else:
        words = ["train", "DATA", *words, *(["0.01"] if words == ["--lr"] else [])]
    parsed = _parse(Command, words, "fewlabels")
    assert not isinstance(parsed, Train) or parsed.method in method_names()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gain": None, "accuracy": None, "test": 0},
        {"calibration": None, "unknown": None},
        {"unknown": ROWS // 8, "set_aside": 10},
        {"gain": {"value": -0.02, "standard_error": 0.02, "clear": False}},
        {"rows": [row_of("knn", 0.82, "near"), row_of("fixmatch", 0.8, kind="method")]},
        # That the supervised baseline is better says the gain alone: it is not free of training.
        {"rows": [row_of("supervised", 0.95, kind="supervised"), row_of("fixmatch", 0.8, kind="method")]},
        reliability_of(0.95, 0.93, 400, 0.01),
        reliability_of(0.7, 0.9, 400, 0.15),  # too modest is no danger
    ],
)
def test_a_healthy_run_gets_no_warning(changes):
    assert warnings_of(summary_of(**changes), lines_of(), findings_of(EVEN, EVEN)) == []


def test_nothing_is_said_of_what_is_not_there():
    few = findings_of([0] * 20)
    assert warnings_of(summary_of(unlabeled=20), [], few) == []
    assert warnings_of(summary_of(unlabeled=0, gain=None), [{"step": 1, "loss": 1.0}], findings_of([])) == []


def test_collapse_to_few_classes():
    said = one("collapse", findings=findings_of([0] * 380 + [1, 2, 3, 1] * 5, EVEN))
    assert "95.0 %" in said and "--method debiaspl" in said
    assert "--method adamatch" in one("collapse", summary_of(method="debiaspl"), findings=findings_of([0] * 400))
    # Where it is so in truth, it is no collapse: by hidden labels, not by labeled rows, of which there are as many.
    rare = np.repeat([0, 1, 2, 3], [370, 10, 10, 10])
    assert warnings_of(summary_of(), lines_of(), findings_of(rare, rare)) == []


def test_classes_that_no_unlabeled_image_is_taken_for():
    three = np.arange(ROWS) % 3
    some = np.where(np.arange(ROWS) < 30, 3, three)
    known = one("classes_never_predicted", findings=findings_of(three, some))
    unknown = one("classes_never_predicted", findings=findings_of(three))
    assert " d," in known and " d," in unknown and known != unknown  # it says whether truth or a guess tells
    assert warnings_of(summary_of(), lines_of(), findings_of(three, three)) == []  # there are none
    two = one("classes_never_predicted", findings=findings_of(np.arange(ROWS) % 2))
    assert "c and d" in two and "--method debiaspl" in two


def test_classes_without_pseudo_labels():
    """The surest rows, as many as were kept at the end, are of other classes."""
    found = findings_of(EVEN, EVEN)
    p = found.raw.copy()
    unsure = np.flatnonzero(p.argmax(1) == 3)
    p[unsure] = [0.2, 0.2, 0.2, 0.4]
    said = one("classes_without_pseudo_labels", findings=replace(found, raw=p))
    assert " d:" in said and "--method flexmatch" in said
    all_kept = lines_of(kept=(1.0,) * 20)
    assert warnings_of(summary_of(), all_kept, replace(found, raw=p)) == []


@pytest.mark.parametrize(
    ("kept", "figures"),
    [((0.01,) * 20, ["1.0 %"]), ((0.6,) * 10 + (0.0,) * 10, ["60.0 %", "0.0 %"])],
)
def test_the_kept_share_is_or_falls_near_nothing(kept, figures):
    said = one("few_pseudo_labels_kept", lines=lines_of(kept=kept))
    assert re.findall(r"[\d.]+ %", said) == figures and "--method softmatch" in said
    other = one("few_pseudo_labels_kept", summary_of(method="softmatch"), lines_of(kept=kept))
    assert "--method freematch" in other


def test_of_a_training_that_is_not_handed_over_nothing_is_said():
    ours, head = row_of("fixmatch", 0.8, kind="method"), row_of("blend", 0.8)
    summary, bad = summary_of(rows=[ours, head]), lines_of(kept=(0.01,) * 20, labeled_loss=FALLING[::-1])
    assert warnings_of(summary, bad, findings_of(EVEN, EVEN)) == []
    assert len(warnings_of(summary | {"rows": [head, ours]}, bad, findings_of(EVEN, EVEN))) == 2


def test_what_to_try_is_what_changes_a_linear_head():
    rows = [row_of("knn", 0.9), row_of("fixmatch", 0.8, kind="method"), row_of("blend", 0.8)]
    summary = summary_of(
        rows=rows,
        gain={"value": -0.1, "standard_error": 0.02, "clear": True},
        gain_over_training_free={"value": -0.1, "standard_error": 0.02, "clear": True},
    )
    collapsed = findings_of(np.zeros(ROWS, int), EVEN)
    said = {each["id"]: each["text"] for each in warnings_of(summary, lines_of(), collapsed)}
    assert set(said) == {"collapse", "unlabeled_data_harmed", "training_free_is_better"}
    assert "--choose method" in said["collapse"] and "--choose linear" in said["unlabeled_data_harmed"]
    assert "--choose knn" in said["training_free_is_better"]
    assert not any(word in text for text in said.values() for word in ("--method", "--lr", "--budget"))


def test_a_kept_share_that_begins_low_and_rises_is_healthy():
    assert warnings_of(summary_of(), lines_of(kept=tuple(np.linspace(0, 0.4, 20))), findings_of(EVEN, EVEN)) == []


def test_pseudo_labels_that_are_wrong():
    truth = np.where(np.arange(ROWS) % 10 < 4, (EVEN + 1) % K, EVEN)
    found = one("pseudo_labels_wrong", findings=findings_of(EVEN, truth))
    assert "40.0 %" in found and "fewlabels next" in found


def test_a_loss_on_labeled_images_that_rises():
    rising = (2.0, *np.geomspace(2, 0.05, 9), *np.linspace(0.1, 4, 10))
    said = one("labeled_loss_rose", lines=lines_of(labeled_loss=rising))
    assert "--lr" in said and " 2 " in said
    # That of all images rises as more of them are kept, and the supervised baseline may end a little above its least.
    whole = [line | {"loss": float(line["step"])} for line in lines_of()]
    assert warnings_of(summary_of(), whole, findings_of(EVEN, EVEN)) == []
    alone = [{"step": i + 1, "loss": value} for i, value in enumerate(rising)]
    one("labeled_loss_rose", lines=alone)


def test_supervised_is_better():
    summary = summary_of(gain={"value": -0.06, "standard_error": 0.02})
    assert "6.0 points" in one("unlabeled_data_harmed", summary)


def test_a_training_free_baseline_is_better():
    rows = [row_of("label_propagation", 0.9, "label propagation on pixels"), row_of("fixmatch", 0.8, kind="method")]
    gain = {"gain_over_training_free": {"value": -0.1, "standard_error": 0.02, "clear": True}}
    said = one("training_free_is_better", summary_of(rows=rows, **gain))
    assert "Label propagation on pixels" in said and "10.0 points" in said and "--budget full" in said
    assert "--budget full" not in one("training_free_is_better", summary_of(rows=rows, budget="full", **gain))
    begun = [rows[0] | {"on_features": True}, row_of("fixmatch", 0.8, kind="method")]
    said = one("training_free_is_better", summary_of(rows=begun, begun_with_weights=True, **gain))
    assert "--classify.features only" in said
    by_chance = {"gain_over_training_free": {"value": -0.01, "standard_error": 0.02, "clear": False}}
    assert warnings_of(summary_of(rows=rows, **by_chance), lines_of(), findings_of(EVEN, EVEN)) == []


def test_a_network_that_is_too_sure():
    off = reliability_of(0.95, 0.8, 400, 0.1)
    said = one("probabilities_off", summary_of(**off))
    assert re.findall(r"[\d.]+ %", said) == ["95.0 %", "80.0 %"] and "--classify.calibrate cross" in said
    off["calibration"]["kind"] = "temperature"
    assert "fewlabels next" in one("probabilities_off", summary_of(**off))
    unsure = reliability_of(0.3, 0.5, 400, 0.1)
    unsure["calibration"] |= {"kind": "temperature", "how": "cross-fitted"}
    said = one("probabilities_off", summary_of(**unsure))
    assert re.findall(r"[\d.]+ %", said) == ["30.0 %", "50.0 %"] and "--classify.calibrate no" in said
    few = summary_of(test=400, **reliability_of(0.95, 0.85, 20, 0.06))
    assert warnings_of(few, lines_of(), findings_of(EVEN, EVEN)) == []  # of 20 rows it may be chance


def test_images_unlike_every_class_files_set_aside_and_few_test_images():
    assert re.findall(r"\d+", one("many_unknown", summary_of(unknown=100))) == ["100", "400"]
    assert re.findall(r"\d+", one("many_quarantined", summary_of(set_aside=40))) == ["40", "456"]
    assert re.findall(r"[\d.]+", one("few_test_rows", summary_of(test=20)))[0] == "20"
