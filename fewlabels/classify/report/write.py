"""Writes report.html: one file that needs no network, light and dark, readable on a phone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.classify.report.classes import class_section
from fewlabels.classify.report.findings import Findings
from fewlabels.classify.report.galleries import galleries, gallery_section
from fewlabels.classify.report.repeat import repeat_section
from fewlabels.classify.report.sections import (
    calibration_section,
    data_section,
    head,
    layer_section,
    learning_section,
    result_section,
)
from fewlabels.classify.report.words import things
from fewlabels.files import replace_text
from fewlabels.report.page import page
from fewlabels.report.pictures import embed
from fewlabels.report.words import count, short

MOST_BYTES = 5_000_000  # of the file: what a mail takes
_SPARE = 40_000  # for what is written around pictures


def write_report(folder: Path, summary: dict[str, Any], findings: Findings, records: Path | None = None) -> None:
    """Write `report.html` of a run, of at most `MOST_BYTES`: pictures take the room that the rest leaves.

    Args:
        folder: the run's, with its configuration.
        summary: as in `summary.json`.
        findings: of its rows.
        records: folder with the records of the training that the run ends with; the run's by default.
    """
    title = f"{short(summary['data'])}: {summary['method']} with {count(summary['labeled'], 'label')}"
    shown = galleries(findings)
    sections = (
        result_section(summary),
        learning_section(records or folder, summary),
        class_section(findings),
        calibration_section(summary),
        layer_section(records or folder, summary["steps"]),
        gallery_section(shown, findings),
        data_section(summary),
        repeat_section(folder, summary),
    )
    values = {"summary": summary, "things": things(summary)} | head(title, summary)
    make = partial(page, "fewlabels.classify.report", list(filter(None, sections)), **values)
    rows = np.concatenate([np.zeros(0, np.int64), *(gallery.rows for gallery in shown)])
    store = findings.store if findings.inputs.are_pictures else None
    pictures = embed(store, rows, MOST_BYTES - len(make(pictures={}).encode()) - _SPARE)
    replace_text(folder / "report.html", make(pictures=pictures))
