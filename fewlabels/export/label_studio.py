"""Label Studio: tasks with what the network takes each image for, and the labels that people gave them.

The formats: https://labelstud.io/guide/predictions (tasks) and https://labelstud.io/guide/export (JSON, JSON_MIN).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from fewlabels.data.more_labels import NewLabels
from fewlabels.errors import UserError, all_of
from fewlabels.files import check_place, replace_text

LOCAL = "/data/local-files/?d="  # where Label Studio itself serves files that lie below its document root
IMAGE, CHOICE, NAME = "image", "label", "name"  # of the labeling configuration and of a task's data


@dataclass(frozen=True)
class Guess:
    """An image to label, with what the network takes it for.

    Attributes:
        name: of the row, as in `split.csv`.
        url: where Label Studio finds the image.
        label, probability: the class, and how probable it is.
    """

    name: str
    url: str
    label: str
    probability: float


class Served(NamedTuple):
    """Files that Label Studio can show.

    Attributes:
        root: for LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT.
        storage: the folder to add as local storage, which must lie below `root`.
        urls: of the files.
    """

    root: Path
    storage: Path
    urls: list[str]


def served_locally(files: Sequence[Path], data: Path) -> Served:
    """Give the addresses under which Label Studio serves files from its own machine.

    Args:
        files: absolute.
        data: the folder that most lie in.
    """
    storage = Path(os.path.commonpath([data, *{file.parent for file in files}]))
    root = storage.parent
    return Served(root, storage, [f"{LOCAL}{quote(file.relative_to(root).as_posix())}" for file in files])


def write_tasks(path: Path, guesses: Sequence[Guess], classes: Sequence[str], version: str) -> None:
    """Write tasks to import, and beside them, as .xml, the labeling configuration that they are for.

    Args:
        path: of the .json file.
        guesses: in the order in which the images are to be labeled.
        classes: to choose from.
        version: who guessed, as Label Studio's column of that name shows it.

    Raises:
        UserError: another suffix, or a file there that is no list of tasks, or has annotations.
    """
    if path.suffix != ".json":
        raise UserError(f"{path} ends in {path.suffix or 'nothing'}; give a name that ends in .json")
    check_place(path, _is_without_labels)
    tasks = [_task(guess, version) for guess in guesses]
    replace_text(path, json.dumps(tasks, indent=1, ensure_ascii=False) + "\n")
    replace_text(path.with_suffix(".xml"), labeling_config(classes))


def _is_without_labels(path: Path) -> bool:
    try:
        return not any(task.get("annotations") or CHOICE in task for task in _tasks(path))
    except UserError:
        return False


def _task(guess: Guess, version: str) -> dict[str, Any]:
    choice = {"from_name": CHOICE, "to_name": IMAGE, "type": "choices", "value": {"choices": [guess.label]}}
    predicted = {"model_version": version, "score": guess.probability, "result": [choice]}
    return {"data": {IMAGE: guess.url, NAME: guess.name}, "predictions": [predicted]}


def labeling_config(classes: Sequence[str]) -> str:
    """Write the labeling configuration: an image, and one class to choose."""
    choices = "".join(f'    <Choice value="{escape(name)}"/>\n' for name in classes)
    return (
        f'<View>\n  <Image name="{IMAGE}" value="${IMAGE}"/>\n'
        f'  <Choices name="{CHOICE}" toName="{IMAGE}" choice="single">\n{choices}  </Choices>\n</View>\n'
    )


def read_annotations(path: Path) -> NewLabels:
    """Read the labels that people gave to tasks of `write_tasks`, from Label Studio's export as JSON or JSON_MIN.

    Annotations that were cancelled, tasks that were skipped and predictions are no labels.

    Raises:
        UserError: it is no such file, or has tasks that `write_tasks` did not make; all problems at once.
    """
    given: dict[str, list[str]] = {}
    problems: list[str] = []
    for number, task in enumerate(_tasks(path), 1):
        try:
            name, chosen = _said(task)
        except (AttributeError, KeyError, TypeError) as error:
            problems.append(f"task {task.get('id', number)} is damaged: {type(error).__name__}, {error}")
            continue
        if isinstance(name, str):
            given.setdefault(name, []).extend(chosen)
        elif chosen:
            problems.append(f"task {task.get('id', number)} has no {NAME!r}, which says which image it is")
    if problems:
        mend = "Give the export of tasks that were made by `fewlabels export --label-studio`."
        raise all_of(str(path), problems, mend, most=3)
    different = {name: sorted(set(labels)) for name, labels in given.items()}
    return NewLabels(
        agreed={name: labels[0] for name, labels in different.items() if len(labels) == 1},
        contested={name: labels for name, labels in different.items() if len(labels) > 1},
    )


def _tasks(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, list) or not all(_is_task(task) for task in cast(list[Any], found)):
        raise UserError(
            f"{path} is no export of Label Studio: it is no list of tasks. Export the project as JSON or JSON-MIN."
        )
    return cast(list[dict[str, Any]], found)


def _is_task(task: Any) -> bool:
    if not isinstance(task, dict):
        return False
    return IMAGE in task or (isinstance(task.get("data"), dict) and isinstance(task.get("annotations", []), list))


def _said(task: dict[str, Any]) -> tuple[Any, list[str]]:
    """Give the name of a task's row, and the classes that its annotations say."""
    if "data" not in task:  # JSON_MIN: data and results side by side, an item for each annotation
        return task.get(NAME), _texts(_chosen(task.get(CHOICE)))
    annotations = task.get("annotations") or []
    return task["data"].get(NAME), _texts(name for annotation in annotations for name in _of_annotation(annotation))


def _of_annotation(annotation: dict[str, Any]) -> Iterator[Any]:
    if annotation.get("was_cancelled"):
        return
    for result in annotation.get("result") or []:
        if result.get("type") == "choices" and result.get("from_name") == CHOICE:
            yield from result["value"]["choices"]


def _chosen(choice: Any) -> list[Any]:
    """Read JSON_MIN's form of a choice: a name, or where several were chosen an object with them."""
    if choice is None:
        return []
    return [choice] if isinstance(choice, str) else list(choice["choices"])


def _texts(names: Iterable[Any]) -> list[str]:
    found = list(names)
    if not all(isinstance(name, str) for name in found):
        raise TypeError(f"a class is no text: {found}")
    return found
