"""Imports point one way: a room knows only the rooms below it."""

import ast
from pathlib import Path

import pytest

import fewlabels

ROOT = Path(fewlabels.__file__).parent
# From the ground up; rooms of one line do not know each other.
FLOORS = [
    ["errors", "version"],
    ["config", "console", "extras", "files", "keys", "own_file"],
    ["averaging", "processes"],
    ["training"],
    ["data"],
    ["inputs"],
    ["models"],
    ["methods"],
    ["report"],
    ["export"],
    ["runs"],
    ["classify"],
    ["cli_task", "cli_words"],
    ["__init__", "cli"],
    ["__main__"],
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module):
    """Return the room of a module by its name, such as fewlabels.data.table."""
    room = module.split(".")[1] if "." in module else ""
    return room if room in FLOOR_OF else "__init__"  # of a name that the package itself has


def imported(text):
    """Return what of the package a text imports, wherever in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"relative: {node.module}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fewlabels":
            yield from [f"fewlabels.{a.name}" for a in node.names] if node.module == "fewlabels" else [node.module]
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "fewlabels")


def upward(path, text):
    """Return the imports of a file that point upward or to a room on the same floor."""
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return [m for m in imported(text) if room_of(m) != room and FLOOR_OF[room_of(m)] >= FLOOR_OF[room]]


def test_every_room_has_a_floor():
    rooms = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__pycache__"} == FLOOR_OF.keys()


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downward(path):
    assert not upward(path, path.read_text())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from fewlabels.data.table import Table", ["fewlabels.data.table"]),
        ("def f():\n    import fewlabels.methods", ["fewlabels.methods"]),
        ("from fewlabels import runs", ["fewlabels.runs"]),
        ("from fewlabels import __version__", ["fewlabels.__version__"]),
        ("from ..runs import fit", ["relative: runs"]),
        ("from fewlabels.keys import Key\nimport torch", []),
    ],
)
def test_an_upward_import_is_seen(text, found):
    assert upward(ROOT / "training" / "loop.py", text) == found
