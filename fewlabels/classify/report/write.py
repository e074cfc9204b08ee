"""Writes report.html: one file that needs no network, light and dark, readable on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

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
from fewlabels.files import replace_text
from fewlabels.report.page import Section, fill, lines, page, short
from fewlabels.report.pictures import embed
from fewlabels.report.words import count

MOST_BYTES = 5_000_000  # of the file: what a mail takes
_SPARE = 50_000  # for what is written beside pictures and sections


def write_report(folder: Path, summary: dict[str, Any], findings: Findings, records: Path | None = None) -> None:
    """Write `report.html` of a run, of at most `MOST_BYTES`: pictures take the room that the rest leaves.

    Args:
        folder: the run's, with its configuration.
        summary: as in `summary.json`.
        findings: of its rows.
        records: folder with the records of the training that the run ends with; the run's by default.
    """
    title = f"{short(summary['data'])}: {summary['method']} with {count(summary['labeled'], 'label')}"
    top = head(title, summary)
    shown = galleries(findings)
    before = _present(
        result_section(summary),
        learning_section(records or folder, summary),
        class_section(findings),
        calibration_section(summary),
        layer_section(records or folder, summary["steps"]),
    )
    after = _present(data_section(summary), repeat_section(folder, summary))
    bare = gallery_section(shown, findings, {})
    taken = sum(len(section.html().encode()) for section in (*before, bare, *after)) + len(top.encode()) + _SPARE
    rows = np.concatenate([np.zeros(0, np.int64), *(gallery.rows for gallery in shown)])
    pictures = embed(findings.store if findings.inputs.are_pictures else None, rows, MOST_BYTES - taken)
    images = [gallery_section(shown, findings, pictures)] if shown else []
    replace_text(folder / "report.html", page(title, _body(top, [*before, *images, *after])))


def _present(*sections: Section | None) -> list[Section]:
    return [section for section in sections if section is not None and any(section.parts)]


def _body(top: Markup, sections: Sequence[Section]) -> Markup:
    links = lines(fill('<li><a href="#{}">{}</a></li>', section.name, section.link) for section in sections)
    return fill(
        '{}\n<nav aria-label="Sections">\n<ul>\n{}\n</ul>\n</nav>\n<main>\n{}\n</main>\n'
        "<footer>This file holds all that it shows: it can be sent and kept as it is.</footer>",
        top, links, lines(section.html() for section in sections),
    )  # fmt: skip
