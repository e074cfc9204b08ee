"""The frame of a page: templates that escape what is filled in, and what its sections and macros are given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from fewlabels.report.words import number, percent


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading of its own, and what its template is given: text, numbers, and no HTML.

    `name` is what a link to it says after the #. Its template is `{name}.html`, where its values have this name too.
    """

    name: str
    title: str
    link: str
    values: Mapping[str, Any]


class Bar(NamedTuple):
    """A number in a cell of a table, with a bar of its share below it, for the eye alone; None draws no bar."""

    text: str
    share: float | None


class Drawing(NamedTuple):
    """A plot with its title above it and a note below; `said` tells what is on it to those who do not see it."""

    title: str
    said: str
    svg: str
    note: str = ""


def page(package: str, sections: Sequence[Section], **values: Any) -> str:
    """Return the whole file, made from the template `report.html` of a package.

    Args:
        package: with a folder of templates: `report.html`, which extends the frame's `page.html`, and one a section.
        sections: in their order on the page.
        values: what all the templates are given beside what each section has.
    """
    named = {section.name: section.values for section in sections}
    return _templates(package).get_template("report.html").render(values | named, sections=sections)


@cache
def _templates(package: str) -> Environment:
    """Return the templates of a package together with those of the frame."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("fewlabels.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Any] = {"percent": percent, "number": number, "split_code": re.compile(r"`([^`]+)`").split}
    made.filters.update(filters)
    return made
