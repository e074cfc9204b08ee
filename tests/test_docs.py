"""What the docs show works."""

import importlib.util
import re
from pathlib import Path

from fewlabels.methods import method_names
from fewlabels.methods.base import Method
from fewlabels.runs.job import begin
from fewlabels.training.loop import update

ROOT = Path(__file__).parent.parent


def test_the_method_that_contributing_shows_trains(small_job, tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "class Sharpened" in b)
    path = tmp_path / "sharpened.py"
    path.write_text(block)
    spec = importlib.util.spec_from_file_location("sharpened", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    method = module.Sharpened(temperature=0.3)
    assert isinstance(method, Method)
    state, feed = begin(small_job(), method)
    out = update(state, feed.batch(0, state.step))
    assert out["unlabeled_loss"] > 0


def test_the_readme_names_every_method():
    text = (ROOT / "README.md").read_text()
    assert all(f"| `{name}` |" in text for name in method_names())
