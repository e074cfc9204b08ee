"""docs/how-it-works.md: what it names exists, and its ways are as short as it promises."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/how-it-works.md").read_text()
FILE = re.compile(r"`(fewlabels/[\w/]+\.py)`")
NAMED = re.compile(r"^\d+\. `(fewlabels/[\w/]+\.py)`:(.*?)(?=^\d+\. |^#|\Z)", re.M | re.S)


def names_in(path):
    """Return the functions, classes and methods (as CLASS.METHOD) of a file, those that a class inherits too."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def section(title):
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("path", sorted(set(FILE.findall(TEXT))))
def test_every_file_exists(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize(("path", "said"), NAMED.findall(TEXT), ids=lambda value: value if ".py" in value else "")
def test_every_function_is_in_its_file(path, said):
    named = re.findall(r"`([\w.]+)`", said)
    assert named, path
    found = names_in(path)
    assert [name for name in named if name[0].isalpha() and name not in found
            and not name.endswith((".yaml", ".html"))] == []  # fmt: skip


@pytest.mark.parametrize(("name", "path"), re.findall(r"`([\w.]+)` (?:in|of) `(fewlabels/[\w/]+\.py)`", TEXT))
def test_every_function_named_with_its_file_exists(name, path):
    assert name in names_in(path)


@pytest.mark.parametrize(("title", "most"), [("The way of a batch", 15), ("The way of `fit`", 25)])
def test_the_ways_are_short(title, most):
    files = FILE.findall(section(title))
    assert len(files) == len(set(files)) <= most
