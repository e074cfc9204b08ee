"""What the docs show works."""

import json
import re
from pathlib import Path

import numpy as np

from fewlabels.classify.preparation import begin
from fewlabels.cli import main
from fewlabels.methods import make_method, method_names
from fewlabels.training.loop import update
from tests.methods import test_methods_and_their_oracles as oracles

ROOT = Path(__file__).parent.parent


def blocks():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return [b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "class Sharpened" in b]


def test_the_method_that_contributing_shows_trains(small_job, tmp_path):
    path = tmp_path / "sharpened.py"
    path.write_text(blocks()[0])
    state, feed = begin(small_job(), make_method(f"{path}:Sharpened:temperature=0.3"))
    out = update(state, feed.batch(0, state.step))
    assert out["unlabeled_loss"] > 0


def test_the_method_and_the_oracle_that_contributing_shows_agree(tmp_path, monkeypatch, float64):
    method, oracle = blocks()
    assert len((method + oracle).splitlines()) < 60
    path, there = tmp_path / "sharpened.py", {}
    path.write_text(method)
    exec(oracle, there)
    (line,) = re.findall(r'^"sharpened": (Case.*),$', (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    name, case = f"{path}:Sharpened", eval(line, vars(oracles) | {"Sharpened": there["Sharpened"]})
    monkeypatch.setitem(oracles.CASES, name, case)
    for options, given in (({}, {}), *case.variants):
        oracles.test_losses_memories_and_gradients_over_consecutive_steps(name, options, given)
    oracles.test_the_variants_are_of_all_options_and_each_changes_the_loss(name)


def test_the_task_that_the_docs_show_runs_and_is_compared(tmp_path, capsys):
    text = (ROOT / "docs/tasks.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (tmp_path / "line.py").write_text(code)
    x = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    np.save(tmp_path / "points.npy", np.column_stack([x, x @ [1, 2, 3]]))
    words = [str(tmp_path / "points.npy"), "--task", f"{tmp_path / 'line.py'}:Line", "--device", "cpu"]
    assert main(["train", *words, "--steps", "300", "--lr", "0.05", "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["rows"][0]["test"]["explained"] > 0.95
    variants = re.search(r"--variants (\S+)", text)[1]
    words += ["--variants", variants, "--seeds", "2", "--out", str(tmp_path / "bench")]
    assert main(["bench", *words]) == 0
    assert "slow" in capsys.readouterr().out


def test_the_readme_names_every_method():
    text = (ROOT / "README.md").read_text()
    assert all(f"| `{name}` |" in text for name in method_names())
