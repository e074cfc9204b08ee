"""More labels for a run, learned from where it ended."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fewlabels.classify.fit import fit
from fewlabels.classify.identity import given_options
from fewlabels.classify.read_labels import read_labels
from fewlabels.classify.run import ClassifierRun
from fewlabels.console import Show
from fewlabels.data.sources.named import NAMES
from fewlabels.data.sources.open import Array, Data
from fewlabels.errors import UserError
from fewlabels.files import read_csv
from fewlabels.runs.folder import RunFolder

_COUNTED = re.compile(r"-\d+-labels$")


def add_labels(
    run: str | Path,
    labels: str | Path,
    data: Data | None = None,
    *,
    unlabeled: str | Path | Array | None = None,
    root: Path | None = None,
    out: str | Path | None = None,
    show: Show | None = None,
    **options: Any,
) -> ClassifierRun:
    """Go on from a finished run with more labels: its split, its parameters, its options; in a folder of its own.

    Labels that the run had never change. The network begins with the run's parameters, head included; anew where the
    run ended with features, or where labels are held out now, which those parameters may have learned. The supervised
    baseline begins anew, since they have learned from the unlabeled images.

    Args:
        run: the run's folder; it is not changed.
        labels: a sheet with the columns path and label, as `next_to_label.csv` and `fewlabels next` make them (rows
            without a label are left out), or annotations that Label Studio exported.
        data: what the run was made from; needed where that was no path and no name, or lies elsewhere now.
        unlabeled, root: likewise, as in `fit`.
        out: folder of the new run; by default the run's name with the number of labels it now has.
        show: where to say what happens; silent by default.
        options: what shall be other than in the run, such as budget.

    Raises:
        UserError: as `fit`; no finished run; labels that do not fit its rows.
    """
    folder, labels = RunFolder(Path(run)), Path(labels)
    given, source = given_options(folder.config())
    if folder.read_json("summary.json") is None:
        raise UserError(f"{folder.path} is not finished: give its command again first, then add labels")
    data = source if data is None else data
    if data is None:
        raise UserError(
            f"{folder.path} was made from data in memory: give it, as fewlabels.add_labels(run, labels, data)"
        )
    chosen: dict[str, Any] = given | {
        "split": folder / "split.csv",
        "labels": labels,
        "start": folder.path,
        "labels_per_class": None,
        "out": Path(out) if out is not None else _named(folder, labels),
        "root": root or given["root"],
        "unlabeled": given["unlabeled"] if unlabeled is None else unlabeled,
    }
    if isinstance(data, str) and data == source and not _is_there(data):
        raise UserError(f"{folder.path} was made from {data}, which is not there now: say where it is, by --data")
    return fit(data, show=show, **chosen | options)


def _is_there(data: str) -> bool:
    return data in NAMES or any(mark in data for mark in "*{") or Path(data).exists()


def _named(folder: RunFolder, labels: Path) -> Path:
    """Name the new run by the number of labels it trains on, so that the same command finds it again."""
    names, given, splits = (read_csv(folder / "split.csv", column) for column in ("name", "label", "split"))
    labeled = {n for n, label, split in zip(names, given, splits, strict=True) if label and split == "train"}
    labeled -= set(read_csv(folder / "quarantine.csv", "path"))
    count = len(labeled | read_labels(labels).agreed.keys())
    return folder.path.with_name(f"{_COUNTED.sub('', folder.path.resolve().name)}-{count}-labels")
