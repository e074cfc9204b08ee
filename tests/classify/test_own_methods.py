"""A method in a user's own file: `--method path/to/file.py:CLASS`."""

import copy
import shutil

import pytest
import torch

import fewlabels
from fewlabels import UserError
from fewlabels.cli import main
from fewlabels.methods import make_method, method_class, method_spec
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.own_file import own_file

pytestmark = pytest.mark.usefixtures("undrawn")

OWN = '''"""Mine, an example."""
from __future__ import annotations

from torch import nn

from fewlabels.config import Fraction
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.methods.supervised import Supervised


class Mine(FixMatch):
    """FixMatch that counts less.

    ::

        loss = mean CE(z, y) + weight * less * ...
    """

    less: Fraction = 0.5
    """a further factor"""

    def forward(self, net, batch):
        out = super().forward(net, batch)
        return out | {"loss": out["labeled_loss"] + self.less * out["unlabeled_loss"]}


class _Helper(FixMatch):
    pass


class Plain:
    pass
'''
WORDS = ["--labels-per-class", "2", "--steps", "6", "--batch", "8", "--unlabeled-ratio", "2", "--device", "cpu"]
WORDS += ["--threads", "1", "--no-baseline"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "code/mine.py"
    path.parent.mkdir()
    path.write_text(OWN.replace("class _Helper(FixMatch)", "class _Helper(nn.Module)"))
    return path


def give(*words):
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return end.code


def said(capsys):
    text = capsys.readouterr()
    return " ".join((text.out + text.err).split())


def test_a_file_is_imported_once_and_again_when_it_changed(own):
    first = method_class(f"{own}:Mine")
    assert method_class("code/mine.py") is first and method_class("code/../code/mine.py:Mine") is first
    before = own.stat()
    own.write_text(own.read_text().replace("0.5", "0.4"))  # as long, and maybe within one tick of the clock
    assert own.stat().st_size == before.st_size
    second = method_class(f"{own}:Mine")
    assert second is not first and (first().less, second().less) == (0.5, 0.4)
    assert own_file(first).path == own_file(second).path and own_file(first).digest != own_file(second).digest
    assert not (own.parent / "__pycache__").exists()


def test_it_survives_deepcopy_and_names_itself(own):
    method = copy.deepcopy(make_method(f"{own}:less=0.25:weight=2"))
    assert (method.less, method.weight, method.threshold) == (0.25, 2, 0.95)
    assert method_spec(method) == f"{own}:Mine" and isinstance(method, fewlabels.Method)
    assert isinstance(method, torch.nn.Module)


def test_train_continue_and_probe(own, tmp_path, monkeypatch, capsys, few_digits):
    assert give("train", few_digits, "--method", "code/mine.py:Mine", "--method.less", "0.25", *WORDS) == 0
    out = tmp_path / "runs/digits-Mine-0"
    config = (out / "config.yaml").read_text()
    assert "name: Mine" in config and "less: 0.25" in config and f"method: {own}:Mine" in config
    assert f"method_file_digest: {own_file(method_class(str(own))).digest}" in config
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    words = ["train", few_digits, "--method", own, "--method.less", "0.25", *WORDS, "--out", out]
    assert give(*words) == 0
    assert "nothing is trained again" in said(capsys)
    assert fewlabels.probe(out)["method"] == "Mine"

    moved = own.rename(tmp_path / "moved.py")
    assert give("probe", out) == 2
    assert f"read from {own}, where no file is now" in said(capsys)
    assert give("probe", out, "--method", moved) == 0
    capsys.readouterr()
    moved.write_text(moved.read_text() + "# changed\n")
    assert give("probe", out, "--method", f"{moved}:Mine") == 2
    assert f"{moved} has changed since this run was begun" in said(capsys)


def test_a_changed_file_does_not_continue_the_run(own, capsys, few_digits):
    words = ["train", few_digits, "--method", own, *WORDS]
    assert give(*words) == 0
    own.write_text(own.read_text().replace("self.less *", "2 * self.less *"))
    capsys.readouterr()
    assert give(*words) == 2
    assert f"{own} has changed since the run was begun" in said(capsys)


def test_another_file_with_a_class_of_the_same_name_is_another_method(own, capsys, few_digits):
    assert give("train", few_digits, "--method", own, *WORDS) == 0
    same = shutil.copy(own, own.with_name("same.py"))
    other = own.with_name("other.py")
    other.write_text(own.read_text() + "# other\n")
    capsys.readouterr()
    assert give("train", few_digits, "--method", same, *WORDS) == 0  # the same text, elsewhere
    assert "nothing is trained again" in said(capsys)
    assert give("train", few_digits, "--method", other, *WORDS) == 2
    assert f"the method was read from {own} and is read from another file now" in said(capsys)


def test_a_class_that_came_another_way_does_not_continue_it(own, few_digits):
    options = {"labels_per_class": 2, "steps": 6, "batch": 8, "unlabeled_ratio": 2, "threads": 1, "baseline": False}
    run = fewlabels.fit(few_digits, method=f"{own}:Mine", **options)
    kind = type("Mine", (method_class("fixmatch"),), {"__module__": "elsewhere"})
    with pytest.raises(UserError, match=r"the method was .*mine\.py:Mine and is Mine now"):
        fewlabels.fit(few_digits, method=kind(), out=run.path, **options)


def test_it_is_described_with_its_options_and_those_that_it_inherits(own, capsys):
    assert give("methods", own) == 0
    text = said(capsys)
    assert "Mine of mine.py: Mine, an example." in text and "FixMatch that counts less." in text
    assert "--method.less (default 0.5; a number, 0 to 1) a further factor" in text
    assert "--method.threshold (default 0.95; a number, 0 to 1) a row counts from" in text


def test_an_option_without_a_default_is_asked_for(own, capsys):
    own.write_text(own.read_text().replace("class Mine(FixMatch)", "class Mine(fewlabels.Method)"))
    own.write_text(
        own.read_text().replace("Fraction = 0.5", "Fraction").replace("from torch", "import fewlabels\nfrom torch")
    )
    assert give("methods", own) == 0
    assert "--method.less (to be given; a number, 0 to 1)" in said(capsys)
    with pytest.raises(UserError, match="needs a value of less"):
        fewlabels.fit("digits", method=str(own), labels_per_class=2)


def test_options_are_parsed_and_checked_as_for_ours(own, capsys):
    assert give("train", "digits", "--method", own, "--method.less", "1.5", *WORDS) == 2
    assert "give a number, 0 to 1" in said(capsys)
    assert give("train", "digits", "--method", own, "--method.lesss", "1", *WORDS) == 2
    assert "--method.less" in said(capsys)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "mime.py:Mine", "no file at 'mime.py': give the path of a Python file. Did you mean mine.py"),
        (OWN, "mine.py:Mien", "mine.py has no class Mien; its methods are Mine, _Helper. Did you mean Mine?"),
        (OWN, "mine.py:Plain", "Plain is no method that mine.py defines; its methods are Mine, _Helper"),
        (OWN, "mine.py:FixMatch", "FixMatch is no method that mine.py defines"),
        (OWN, "mine.py", "mine.py has several methods, Mine, _Helper: name one, as mine.py:Mine"),
        ("class A: pass", "mine.py:A", "mine.py has no method: no class that it defines is derived from fewlabels"),
        ("", "mine.py", "mine.py has no method"),
        ("import os\n\n1 / 0\n", "mine.py", "line 3, `1 / 0`: ZeroDivisionError: division by zero"),
        ("def f(:\n", "mine.py", "line 1, `def f(:`: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(3)\n", "mine.py", "line 2, `sys.exit(3)`: SystemExit: 3"),
        ("from beside import x\n", "mine.py", "No module named 'beside'. Its folder is not searched"),
        ("import nothing_such\n", "mine.py", "line 1, `import nothing_such`: ModuleNotFoundError"),
        (None, "mine", "One of your own is path/to/file.py:CLASS"),
    ],
)
def test_what_is_wrong_is_said_with_code_2(tmp_path, monkeypatch, capsys, text, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN if text is None else text)
    (tmp_path / "beside.py").write_text("x = 1\n")
    for words in (["train", "digits", "--method", name], ["methods", name]):
        assert give(*words) == 2
        found = said(capsys)
        assert message in found and "Traceback" not in found
    assert not (tmp_path / "runs").exists()


def test_bench_takes_files(own, tmp_path, few_digits):
    options = {"labels_per_class": 2, "steps": 4, "batch": 8, "unlabeled_ratio": 2, "threads": 1}
    other = own.with_name("other.py")
    other.write_text(own.read_text() + "# other\n")
    names = f"{own}:Mine,{own}:Mine:less=0.1,code/other.py"
    found = fewlabels.bench(few_digits, methods=names, seeds=1, out=tmp_path / "b", **options)
    assert [row.name for row in found.rows[-3:]] == ["mine.py:Mine", "mine.py:Mine:less=0.1", "other.py:Mine"]
    assert (tmp_path / "b/mine.py-Mine-less=0.1-0/summary.json").is_file()
    with pytest.raises(UserError, match=r"two methods are called mine\.py:Mine"):
        fewlabels.bench(few_digits, methods=[str(own), f"{own}:Mine"], seeds=1, out=tmp_path / "b", **options)


BROKEN = {
    "a name that is not there": ('{"loss": self.wieght}', r"line 7.*AttributeError: .*wieght"),
    "no loss": ('{"los": net.logits(net.features(batch.labeled[0])).sum()}', "KeyError: 'loss'"),
    "no dictionary": ("net.logits(net.features(batch.labeled[0])).sum()", "cannot do a step"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_method_that_cannot_do_a_step_says_so_before_there_is_a_run(tmp_path, name, few_digits):
    given, said = BROKEN[name]
    file = tmp_path / "broken.py"
    file.write_text(
        "from fewlabels import Method\n\n\nclass Broken(Method):\n"
        f'    """b"""\n    def forward(self, net, batch):\n        return {given}\n'
    )
    with pytest.raises(UserError, match=said):
        fewlabels.fit(few_digits, method=str(file), labels_per_class=4, steps=2, threads=1, out=tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("method", [FixMatch, 3])
def test_what_is_no_method_object_is_refused(method):
    with pytest.raises(UserError, match="give a name"):
        fewlabels.fit("digits", method=method)
