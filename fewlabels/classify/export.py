"""`fewlabels export`: a finished run as ONNX, a folder for the Hub, tasks for Label Studio, or a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet

from fewlabels.classify.identity import given_options
from fewlabels.classify.model_card import card_of
from fewlabels.classify.next_labels import listed_next
from fewlabels.classify.outputs import GROUP, write_table
from fewlabels.classify.run import load
from fewlabels.errors import UserError
from fewlabels.export.hub import finished_card, push, write_hub_folder
from fewlabels.export.label_studio import Guess, served_locally, write_tasks
from fewlabels.export.onnx import write_onnx
from fewlabels.report.words import count
from fewlabels.runs.folder import RunFolder
from fewlabels.version import __version__


def export_onnx(run: Path, path: Path) -> str:
    """Write a run as ONNX; say in a line what was written. See `write_onnx`."""
    classifier = load(run)
    difference, what = write_onnx(classifier, path), classifier.card.form.what
    checked = (
        f"differs from PyTorch by at most {difference:.0e}, on random {what}"
        if difference is not None
        else "not checked, as onnxruntime is not installed"
    )
    return f"{path}: {checked}; {path.name}.json says what it takes and gives"


def export_hub(run: Path, folder: Path, repo: str | None = None) -> str:
    """Write a run as a folder for the Hub, and push it where a repository is named. See `write_hub_folder`."""
    written = write_hub_folder(run, folder, card_of(run))
    pushed = f"; pushed to {push(folder, repo)}" if repo else ""
    kept = "README.md was there and is left as it is; remove it to get a new one"
    said = "read README.md, which speaks for you, and choose a license" if written else kept
    return f"{folder}: {said}{pushed}"


def export_label_studio(run: Path, path: Path, url_prefix: str | None = None) -> str:
    """Write a run's unlabeled images as tasks for Label Studio, those to label next first.

    Args:
        run: folder of a finished run.
        path: of the .json file.
        url_prefix: what stands before a row's name in the address of its image; None where Label Studio serves the
            images from its own machine.

    Raises:
        UserError: no finished run, no unlabeled images, or images that are no files without a prefix.
    """
    card = finished_card(run)
    if card.form.what != "images":
        raise UserError(
            f"Label Studio shows images, and {run} takes {card.form.what}: fill in the sheet of `fewlabels next`"
        )
    rows = _unlabeled(run)
    if url_prefix is None:
        data, files = _files(run, [name for name, *_ in rows])
        root, storage, urls = served_locally(files, data)
        mend = f"Label Studio needs LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root} and the local storage {storage}"
    else:
        urls = [url_prefix + quote(name) for name, *_ in rows]
        mend = f"they are shown from {urls[0]}, ..."
    guesses = [Guess(name, url, label, p) for (name, label, p), url in zip(rows, urls, strict=True)]
    write_tasks(path, guesses, card.classes, f"fewlabels {__version__} {run.resolve().name}")
    return (
        f"{path}: {len(guesses)} images to label, {path.with_suffix('.xml').name} is the labeling configuration; {mend}"
    )


def export_csv(run: Path, path: Path) -> str:
    """Write what a run says of each of its rows as a .csv file, for those who read no Parquet.

    Raises:
        UserError: no finished run, another suffix, or a place that cannot be written.
    """
    if path.suffix != ".csv":
        raise UserError(f"--csv {path} ends in {path.suffix or 'nothing'}; give a name that ends in .csv")
    finished_card(run)
    said = pyarrow.parquet.ParquetFile(run / "predictions.parquet")
    write_table(path, (_columns(batch) for batch in said.iter_batches(GROUP)))
    return f"{path}: {count(said.metadata.num_rows, 'row')}; the columns are those of predictions.parquet"


def _columns(batch: Any) -> dict[str, Any]:
    """Give the columns of a part: numbers as they are, so that float32 stays short; texts and lists as Python's."""
    columns = zip(batch.schema.names, batch.columns, strict=True)
    is_number = pyarrow.types.is_primitive
    return {name: column if is_number(column.type) else column.to_pylist() for name, column in columns}


def _unlabeled(run: Path) -> list[tuple[str, str, float]]:
    """Give name, label and probability of the unlabeled training rows: those to label next, then the least sure."""
    order = {name: place for place, name in enumerate(listed_next(run))}
    columns = ["path", "split", "source", "label", "probability"]
    table = pyarrow.parquet.read_table(run / "predictions.parquet", columns=columns).to_pylist()
    rows = [
        (row["path"], row["label"], row["probability"])
        for row in table
        if row["split"] == "train" and row["source"] == "predicted"
    ]
    if not rows:
        raise UserError(f"{run} has no unlabeled images: there is nothing to label")
    return sorted(rows, key=lambda row: (order.get(row[0], len(order)), row[2]))


def _files(run: Path, names: Sequence[str]) -> tuple[Path, list[Path]]:
    """Give the folder of the run's data, and the file of each row."""
    _, source = given_options(RunFolder(run).config())
    data = Path(source or "").absolute()
    folder = data.parent if data.is_file() else data
    # A row of another folder, given as --unlabeled, is named by its path.
    files = [file if (file := folder / name).is_file() else Path(name).absolute() for name in names]
    if lost := [name for name, file in zip(names, files, strict=True) if not file.is_file()]:
        raise UserError(
            f"images that are no files here: {len(lost)} of {len(names)}, such as {lost[0]} of {source or 'arrays'}. "
            "Give --url-prefix ADDRESS: a row's name is added to it, and there Label Studio must find the image."
        )
    return folder, files
