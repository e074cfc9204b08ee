"""The report: whole, self-contained, in plain words, and small enough to be sent."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml

from benchmarks.report import Case, Noise, made_up, write_run
from fewlabels.classify.reference import Suspects
from fewlabels.classify.report import write as html
from fewlabels.classify.report.findings import Findings
from fewlabels.classify.report.galleries import galleries
from fewlabels.classify.report.words import asked, came_out, trust, verdict, verdict_id
from fewlabels.classify.report.write import MOST_BYTES, write_report
from fewlabels.data.sources.open import from_arrays
from fewlabels.data.splits import hide_all_but
from fewlabels.inputs.images.store import ResidentImages
from fewlabels.inputs.kinds import IMAGES, VECTORS
from fewlabels.report.pictures import embed
from fewlabels.training.record import append_line
from tests.conftest import rows_of

NOTHING = rows_of([])


def metrics_of(accuracy):
    """Make metrics that differ; None without an accuracy."""
    if accuracy is None:
        return None
    return {"accuracy": accuracy, "balanced_accuracy": accuracy - 0.07, "macro_f1": accuracy - 0.16}


def row_of(name="layermatch", accuracy=0.5, label=None, kind="method", hidden=None, **changes):
    row = {"name": name, "label": label or name, "kind": kind, "test": metrics_of(accuracy),
           "hidden": metrics_of(hidden), "seconds": 1.0, "added": None}  # fmt: skip
    return row | changes


def summary_of(accuracy=0.5, hidden=None, why=None, **changes):
    scores = {"test": metrics_of(accuracy), "hidden": metrics_of(hidden)}
    summary = {
        "task": "classify", "data": "a<b>", "rows_are": "images", "method": "layermatch", "seed": 0,
        "model": "small_cnn", "steps": 5, "labeled": 4, "unlabeled": 4, "test": 4, "set_aside": 0,
        "notes": ["a <note>"], "rows": [row_of()], "policy": "grad_relu",
        "chosen": {"name": "layermatch", "why": why, "margin": None, "cross_validated": None, **scores},
        "gain": {"value": 0.1, "standard_error": 0.01, "clear": True}, "gain_over_training_free": None,
    }  # fmt: skip
    return summary | changes


@pytest.fixture
def findings():
    """Eight training rows, four of them with hidden labels, and four test rows; all of noise."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (12, 9, 9, 3), dtype=np.uint8)
    y = np.arange(12) % 2
    table = from_arrays(
        {"x": x[:8], "y": y[:8], "x_test": x[8:], "y_test": y[8:], "classes": ["<cat>", 'do"g']}, "a<b>"
    )
    table = hide_all_but(table, np.arange(4))
    p = rng.dirichlet([1, 1], 12).astype(np.float32)
    images = ResidentImages(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    return Findings(table, IMAGES, images, p, p, np.zeros(12, bool), Suspects(NOTHING, NOTHING), rows_of([5, 4]))


def page_of(folder, findings, summary=None):
    folder.mkdir(exist_ok=True)
    write_report(folder, summary or summary_of(), findings)
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Give the page of a run that has everything."""
    folder = tmp_path_factory.mktemp("whole")
    write_run(folder)
    summary, findings = made_up(Case(rows=500, side=40))
    write_report(
        folder,
        summary | {"warnings": [{"id": "collapse", "severity": "high", "text": "beware, try `--lr 0.01`"}]},
        findings,
    )
    return (folder / "report.html").read_text()


class Reader(HTMLParser):
    """Notes the elements of a page, and which are left open."""

    def __init__(self, page):
        super().__init__()
        self.found, self.open, self.texts = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "wbr", "br") and tag not in ("path", "use", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "use", "rect"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, tag):
        return [attributes for found, attributes in self.found if found == tag]


def test_it_needs_no_network_and_runs_nothing(whole):
    assert not re.findall(r"\s(?:src|href)\s*=\s*[\"'](?!data:image/|#)", whole)
    assert "url(http" not in whole and "<script" not in whole and "@import" not in whole
    assert "default-src 'none'" in whole


def test_a_whole_run_has_every_part(whole):
    titles = re.findall(r"<h2[^>]*>([^<]+)</h2>", whole)
    assert titles == [
        "A warning", "What each step brought", "While it learned", "Class by class",
        "Can the probabilities be trusted?", "Do pseudo-labels help every layer?", "Images to look at",
        "What was done to the data", "How to repeat this run",
    ]  # fmt: skip
    shown = re.findall(r"<h3>([^<]+)</h3>", whole)
    assert shown == ["Which classes are confused", "Next to label", "Suspected wrong", "Unlike every class",
                     "The most doubtful", "The surest"]  # fmt: skip
    assert whole.count("<figcaption>") == 7 and "right, of the surest" in whole
    assert "beware, try <code>--lr 0.01</code>" in whole and "--method.confidence 0.9" in whole


def test_it_is_well_formed_and_can_be_walked(whole):
    reader = Reader(whole)
    assert not reader.open
    names = [a["id"] for _, a in reader.found if "id" in a]
    assert len(names) == len(set(names))
    links = [a["href"][1:] for a in reader.of("a")]
    assert len(links) == 8 and set(links) <= set(names)
    levels = [int(tag[1]) for tag, _ in reader.found if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in pairwise(levels))
    assert {"header", "nav", "main", "footer"} <= {tag for tag, _ in reader.found}
    regions = [a for _, a in reader.found if a.get("role") == "region"]
    assert regions and all(a["tabindex"] == "0" and a["aria-label"] for a in regions)
    assert all(a["aria-label"] for _, a in reader.found if a.get("role") == "img")


def test_names_are_escaped_and_images_have_texts(tmp_path, findings):
    page = page_of(tmp_path, findings)
    assert "a&lt;b&gt;" in page and "&lt;cat&gt;" in page and "a &lt;note&gt;" in page
    assert not re.search(r"<cat>|<b>|<note>", page)
    images = Reader(page).of("img")
    assert len(images) == 2 + 4 + 4  # next, doubtful, surest
    assert all(image["alt"] and image["src"].startswith("data:image/png") for image in images)


def test_nothing_that_a_user_names_becomes_html(tmp_path, findings):
    bad = """<script>alert('1')</script>&"`x`"""
    write_run(tmp_path)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config |= {"version": bad, "where": dict.fromkeys(config["where"], bad), "given": config["given"] | {"data": bad}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    table = replace(findings.table, classes=(bad, "b"), names=tuple(f"{bad}/{i}" for i in range(12)))
    names = dict.fromkeys(("data", "method", "model", "policy"), bad)
    warnings = [{"id": "collapse", "severity": "high", "text": bad}]
    summary = summary_of(**names, why=bad, notes=[bad], rows=[row_of(bad)], warnings=warnings)
    reader = Reader(page_of(tmp_path, replace(findings, table=table), summary))
    assert not reader.of("script") and not reader.open
    said = "".join(reader.texts)
    assert said.count(bad) > 20 and said.count(bad.replace("`", "")) == 1  # the warning, where backticks make code
    alts = [image["alt"] for image in reader.of("img")]
    assert len(alts) == 2 + 4 + 4 and all(bad in alt for alt in alts)


def test_a_run_of_before_or_without_anything_is_reported_too(tmp_path, findings):
    """No configuration, no records, no test split, no hidden labels, no unlabeled rows, no images."""
    bare = summary_of(gain=None, accuracy=None, notes=[])
    del bare["rows_are"]
    page = page_of(tmp_path, findings, bare | {"calibration": None, "unknown": None, "warnings": None})
    assert 'id="repeat"' not in page and 'id="data"' not in page and 'id="learning"' not in page
    table = findings.table
    table = replace(table, truth=np.full(12, -1)).take(np.arange(4))
    alone = replace(findings, table=table, inputs=VECTORS, next=NOTHING)
    page = page_of(tmp_path, alone, bare | {"unlabeled": 0, "test": 0, "rows": [row_of(accuracy=None)]})
    assert "confused" not in page and "<img" not in page and "unlabeled taken for it" not in page
    assert verdict(bare)[0].split(", so ")[0] in page


def test_rows_without_pictures_are_shown_by_name(tmp_path, findings):
    page = page_of(tmp_path, replace(findings, inputs=VECTORS))
    assert "Vectors to look at" in page and "<img" not in page and "<small>x[5]</small>" in page


def test_the_table_shows_what_each_step_added_and_why_one_was_left_out(tmp_path, findings):
    rows = [
        row_of("supervised", 0.4, kind="supervised"),
        row_of("linear", 0.5, "linear on features", "training_free", added=0.125),
        row_of(accuracy=0.55, added=0.0),
    ]
    page = page_of(tmp_path, findings, summary_of(rows=rows, why="fine-tuning: no <time>"))
    cells = re.findall(r'<td class="n">([^<]*)', page.split("</table>")[0])
    assert cells == ["40.0 %", "33.0 %", "24.0 %", "-10.0", "-", "-", "1.0",
                     "50.0 %", "43.0 %", "34.0 %", "-", "+10.0", "+12.5", "1.0",
                     "55.0 %", "48.0 %", "39.0 %", "+5.0", "+10.0 \u00b1 1.0", "+0.0", "1.0"]  # fmt: skip
    assert "<p>Why it ended there: fine-tuning: no &lt;time&gt;.</p>" in page
    assert "added to the step before" in page and "on hidden labels</th>" not in page
    assert "Why it ended there" not in page_of(tmp_path, findings, summary_of(rows=rows))


def test_the_table_shows_hidden_labels_beside_the_test_split_or_in_its_place(tmp_path, findings):
    both = [row_of("supervised", 0.4, kind="supervised", hidden=0.3), row_of(accuracy=0.5, hidden=0.6)]
    tables = []
    for tested in (True, False):
        rows = both if tested else [row | {"test": None} for row in both]
        summary = summary_of(0.5 if tested else None, 0.6, gain=None, rows=rows)
        page = page_of(tmp_path, findings, summary | ({} if tested else {"test": 0}))
        assert ("<strong>50.0 %" in page, "<strong>60.0 %" in page) == (tested, not tested)  # the tile
        table = page.split('id="results"')[1].split("</table>")[0]
        heads = [re.sub("<[^>]*>", "", head) for head in re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table)]
        tables.append((heads, re.findall(r'<td class="n">([^<]*)', table)))
    more = ["balanced accuracy", "macro F1"]
    assert tables == [
        (["method", "test accuracy", *more, "on hidden labels", "gain over supervised", "seconds"],
         ["40.0 %", "33.0 %", "24.0 %", "30.0 %", "-", "1.0", "50.0 %", "43.0 %", "34.0 %", "60.0 %", "+10.0", "1.0"]),
        (["method", "accuracy on hidden labels", *more, "gain over supervised", "seconds"],
         ["30.0 %", "23.0 %", "14.0 %", "-", "1.0", "60.0 %", "53.0 %", "44.0 %", "+30.0", "1.0"]),
    ]  # fmt: skip


def test_galleries_choose_what_they_say(findings):
    p = findings.probabilities.copy()
    p[4:8] = [[0.1, 0.9], [0.3, 0.7], [0.2, 0.8], [0.6, 0.4]]
    unknown = np.zeros(12, bool)
    unknown[[1, 5, 6, 9]] = True  # also labeled and test rows, which are no trouble of the unlabeled ones
    found = galleries(
        replace(findings, probabilities=p, unknown=unknown, suspects=Suspects(rows_of([9, 2]), rows_of([0, 1])))
    )
    rows = {gallery.title: gallery.rows.tolist() for gallery in found}
    assert rows == {
        "Next to label": [5, 4],
        "Suspected wrong": [2],  # and no test image
        "Unlike every class": [6, 5],
        "The most doubtful": [7, 5, 6, 4],
        "The surest": [4, 7, 6, 5],  # of each class the surest, before the second of any
    }


def test_marks_tell_right_from_wrong(tmp_path, findings):
    p = np.tile(np.float32([0.999, 0.001]), (12, 1))
    page = page_of(
        tmp_path,
        replace(findings, probabilities=p, suspects=Suspects(rows_of([0, 1]), rows_of([1, 0])), next=rows_of([4, 5])),
    )
    assert page.count("most alike: ") == 2
    assert page.count("over 99 %") == 2 + 2 + 4 + 4 and "100 %<" not in page
    assert page.count("in truth: do&#34;g") == 1 + 2 + 2 and page.count(">right<") == 1 + 2 + 2
    assert (
        page.count('<span class="wrong">given: do&#34;g') == 1 and page.count('<span class="">given: &lt;cat&gt;') == 1
    )


def test_pictures_shrink_until_they_have_room():
    images, rows = Noise(100, 300), rows_of([*range(20), 3, 3])
    large = embed(images, rows, 10_000_000)
    assert len(large) == 20 and {(p.width, p.height) for p in large.values()} == {(160, 160)}
    assert all(p.source.startswith("data:image/jpeg") for p in large.values())
    taken = sum(len(p.source) for p in large.values())
    smaller = embed(images, rows, taken)  # one is shown three times: they do not fit
    assert smaller[0].width < 160 and sum(len(smaller[row].source) for row in rows.tolist()) <= taken
    assert embed(images, rows, 100) == {} and embed(None, rows, 10_000_000) == {}
    tiny = embed(Noise(100, 28), rows, 10_000_000)
    assert tiny[0].source.startswith("data:image/png") and tiny[0].width == 28


def test_the_file_stays_small_with_many_classes_long_names_and_large_images(tmp_path, monkeypatch):
    write_run(tmp_path)
    summary, findings = made_up(Case(rows=4000, classes=400, side=200, letters=300))
    write_report(tmp_path, summary, findings)
    size = (tmp_path / "report.html").stat().st_size
    assert size < MOST_BYTES
    monkeypatch.setattr(html, "MOST_BYTES", size - 20_000)
    write_report(tmp_path, summary, findings)
    assert "<img" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "report.html").stat().st_size <= size - 20_000
    monkeypatch.setattr(html, "MOST_BYTES", 100_000)
    write_report(tmp_path, summary, findings)
    assert "no room for pictures" in (tmp_path / "report.html").read_text()


def test_many_classes_are_shown_by_their_ends_and_confusions_by_a_list(tmp_path):
    summary, findings = made_up(Case(rows=3000, classes=60, side=8))
    page = page_of(tmp_path, findings, summary)
    assert "The 10 classes that are found least" in page and "All 60 classes, the worst first" in page
    assert 'class="heat"' in page and 'class="matrix"' not in page
    counts = [int(n) for n in re.findall(r"</strong>: (\d+) of", page)]
    assert len(counts) == 10 and counts == sorted(counts, reverse=True)
    worst = [float(n) for n in re.findall(r'<td class="n">([\d.]+) %<span', page.split("found best")[0])]
    assert len(worst) == 1 * 4 + 2 * 10  # test accuracy of each method; recall and precision


def test_class_results_are_those_of_a_count_by_hand(tmp_path, findings):
    p = findings.probabilities.copy()
    p[8:] = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]  # of classes 0, 1, 0, 1
    p[8] = [0.2, 0.8]
    page = page_of(tmp_path, replace(findings, probabilities=p))
    table = page.split("Results of each class</caption>")[1].split("</table>")[0]
    cells = re.findall(r"<td class=\"n\">([^<]*)", table)
    taken = np.bincount(p[4:8].argmax(1), minlength=2)
    assert cells == ["2", "2", "0.0 %", "0.0 %", str(taken[0]), "2", "2", "50.0 %", "33.3 %", str(taken[1])]
    matrix = page.split('<table class="matrix">')[1].split("</table>")[0]
    assert re.findall(r"<td[^>]*>(\d*)</td>", matrix.split("<tbody>")[1]) == ["0", "2", "1", "1"]


def figures(text):
    return re.findall(r"[+-]?\d[\d.,]*\d|\d", text)


@pytest.mark.parametrize(
    ("changes", "expected", "said"),
    [
        ({}, "helped", ["+10.0", "1.0"]),
        ({"gain": {"value": -0.02, "standard_error": 0.005, "clear": True}}, "harmed", ["-2.0", "0.5"]),
        ({"gain": {"value": -0.02, "standard_error": 0.02, "clear": False}}, "not_significant", ["-2.0", "2.0"]),
        ({"gain": {"value": 0.02, "standard_error": 0.02, "clear": False}}, "not_significant", ["+2.0", "2.0"]),
        ({"gain": {"value": 0.0, "standard_error": 0.0, "clear": False}}, "unchanged", []),
        ({"gain": None}, "no_baseline", ["50.0"]),
        ({"unlabeled": 0}, "no_unlabeled", ["50.0"]),
        ({"accuracy": None}, "no_test", []),
    ],
)
def test_the_verdict_says_with_its_figures_whether_the_unlabeled_data_helped(changes, expected, said):
    summary = summary_of(**changes)
    assert verdict_id(summary) == expected
    (line,) = verdict(summary)  # there is no training-free baseline
    assert figures(line) == said
    accuracy = [] if summary["chosen"]["test"] is None else ["50.0"]
    assert figures(came_out(summary)) == [*accuracy, *(figure for figure in said if figure != "50.0")]


@pytest.mark.parametrize("clear", [True, False])
def test_the_gain_over_the_best_training_free_baseline_leads(tmp_path, findings, clear):
    rows = [row_of("knn", 0.3, "kNN on pixels", "training_free"), row_of("poisson", 0.4, "Poisson", "training_free")]
    gain = {"value": 0.07, "standard_error": 0.02, "clear": clear}
    summary = summary_of(rows=[*rows, row_of()], gain_over_training_free=gain)
    first, second = verdict(summary)
    assert figures(first) == ["7.0", "2.0"] and "Poisson" in first and "helped" in second
    assert ("not statistically significant" in first) == (not clear)
    said = came_out(summary)
    assert said.index(" 7.0 points over") < said.index("+10.0")
    below = verdict(summary | {"gain_over_training_free": gain | {"value": -0.07}})[0]
    assert below.startswith("7.0 points below")
    page = page_of(tmp_path, findings, summary)
    assert page.index("points over Poisson") < page.index("points over the supervised baseline")
    assert "+7.0 \u00b1 2.0" in page


# One word of each verdict, which no other has.
WORD_OF = {
    "helped": "helped", "harmed": "harm", "not_significant": "significant", "unchanged": "nothing",
    "no_baseline": "without the supervised baseline", "no_unlabeled": "no unlabeled", "no_test": "no test",
}  # fmt: skip


def test_each_verdict_has_its_own_word():
    gains = [{"value": v, "standard_error": e, "clear": c}
             for v, e, c in ((0.1, 0.01, True), (-0.1, 0.01, True), (0.1, 0.1, False), (0.0, 0.0, False))]  # fmt: skip
    summaries = [summary_of(gain=gain) for gain in (*gains, None)]
    summaries += [summary_of(unlabeled=0), summary_of(accuracy=None)]
    assert {verdict_id(summary) for summary in summaries} == WORD_OF.keys()
    for summary in summaries:
        for text in (verdict(summary)[0], came_out(summary)):
            assert {word for word in WORD_OF.values() if word in text} == {WORD_OF[verdict_id(summary)]}


def test_trust_tells_whether_the_health_checks_ran_and_found_something():
    one = [{"id": "collapse", "severity": "high", "text": "."}]
    unchecked, healthy, warned = (trust(summary_of(warnings=found)) for found in (None, [], one))
    assert len({unchecked, healthy, warned}) == 3
    assert "warning" in warned and "warning" not in healthy and "health" in healthy


def test_three_sentences_have_the_figures_of_what_was_asked_what_came_out_and_how_far_to_trust_it():
    best = row_of("knn", 0.3, "kNN on pixels", "training_free")
    better = row_of("supervised", 0.95, kind="supervised")  # but not without a training
    summary = summary_of(labeled=1, unlabeled=1432, test=355, accuracy=0.9, rows=[better, best, row_of()])
    summary["gain_over_training_free"] = {"value": 0.6, "standard_error": 0.02, "clear": True}
    assert figures(asked(summary)) == ["5", "1", "1,432", "355"]
    assert all(summary[name] in asked(summary) for name in ("method", "model", "data"))
    assert figures(asked(summary | {"held_out": 6})) == ["5", "1", "6", "1,432", "355"]
    assert figures(came_out(summary)) == ["90.0", "60.0", "2.0", "+10.0", "1.0"] and best["label"] in came_out(summary)
    assert figures(trust(summary)) == ["355", "86.6", "92.8", "95"]
    fitted = {"rows": 20, "promised": False, "calibrated": {"ece": 0.05}}
    said = figures(trust(summary | {"calibration": fitted, "warnings": []}))
    assert said[4:] == ["20"]  # what is not promised has no figure
    one = [{"id": "collapse", "severity": "high", "text": "."}]
    assert figures(trust(summary | {"calibration": fitted | {"promised": True}, "warnings": one}))[4:] == ["5.0"]
    assert figures(trust(summary | {"calibration": fitted | {"rows": 0}, "warnings": 2 * one}))[4:] == ["5.0", "2"]
    assert figures(trust(summary_of(accuracy=None))) == []


def test_a_calibration_that_cannot_be_promised_says_what_would_mend_it(tmp_path, findings):
    none = {"kind": "none", "temperature": 1.0, "rows": 0, "how": "none", "promised": False, "raw": None}
    page = page_of(tmp_path, findings, summary_of(calibration=none | {"calibrated": None}))
    section = page.split('id="probabilities"')[1].split("</section>")[0]
    assert "100 labels" in section and "<code>--classify.calibrate cross</code>" in section
    assert "<svg" not in section  # there is nothing to draw


def test_broken_numbers_in_a_record_do_not_break_the_report(tmp_path, findings):
    for line in ({"step": 1, "loss": float("nan"), "kept": None}, {"step": 2, "loss": 1.0, "kept": 0.0}):
        append_line(tmp_path / "metrics.jsonl", line)
    page = page_of(tmp_path, findings)
    assert "layermatch from 1 at step 2 to 1 at step 2" in page and "kept share from 0 at step 2" in page
