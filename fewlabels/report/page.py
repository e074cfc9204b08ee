"""The frame of a page, and the few pieces of HTML that its sections are made of. What is filled in is escaped."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from markupsafe import Markup, escape

Text = str | Markup

MOST_LETTERS = 60  # of a name from the user's data; longer ones lose their middle

# Nothing is fetched and nothing is run, whatever the names of classes and files are.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_CODE = re.compile(r"`([^`]+)`")

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def fill(template: str, *values: object, **named: object) -> Markup:
    """Fill a template of HTML; values that are not HTML themselves are escaped."""
    return Markup(template).format(*values, **named)  # noqa: S704 - templates are ours, all else is a value


def lines(parts: Iterable[Markup]) -> Markup:
    """Put pieces below each other."""
    return Markup("\n").join(part for part in parts if part)


def page(title: str, body: Markup) -> str:
    """Make the whole file."""
    style = files("fewlabels.report").joinpath("report.css").read_text(encoding="utf-8")
    return fill(_PAGE, policy=_POLICY, title=title, style=Markup(style), body=body)  # noqa: S704 - our own file


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading of its own; `name` is what a link to it says after the #."""

    name: str
    title: str
    link: str
    parts: tuple[Markup, ...]

    def html(self) -> Markup:
        """Give it as HTML."""
        return fill(
            '<section id="{0}" aria-labelledby="{0}-title">\n<h2 id="{0}-title">{1}</h2>\n{2}\n</section>',
            self.name, self.title, lines(self.parts),
        )  # fmt: skip


def told(text: str) -> Markup:
    """Make HTML of a sentence; what stands between backticks is code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def paragraph(text: Text, kind: str = "") -> Markup:
    """Make a paragraph."""
    return fill('<p class="{}">{}</p>', kind, text) if kind else fill("<p>{}</p>", text)


def heading(text: Text) -> Markup:
    """Make a heading within a section."""
    return fill("<h3>{}</h3>", text)


def listed(items: Iterable[Text], kind: str = "ul") -> Markup:
    """Make a list."""
    return fill("<{0}>{1}</{0}>", Markup(kind), lines(fill("<li>{}</li>", item) for item in items))  # noqa: S704


def scrolled(label: str, inner: Markup) -> Markup:
    """Let a wide thing be moved sideways, by keys too, while the page stays where it is."""
    return fill('<div class="wide" role="region" aria-label="{}" tabindex="0">{}</div>', label, inner)


def table(label: str, head: Sequence[str], rows: Iterable[Sequence[Text]], marked: int | None = None) -> Markup:
    """Make a table whose first column names the rows and whose others are numbers; one row may be marked."""
    top = Markup("").join(
        fill('<th scope="col"{}>{}</th>', Markup(' class="n"') if i else "", name) for i, name in enumerate(head)
    )
    body = lines(_row(cells, i == marked) for i, cells in enumerate(rows))
    return scrolled(
        label,
        fill(
            '<table>\n<caption class="unseen">{}</caption>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody></table>',
            label, top, body,
        ),
    )  # fmt: skip


def _row(cells: Sequence[Text], marked: bool) -> Markup:
    first, *others = cells
    numbers = Markup("").join(fill('<td class="n">{}</td>', cell) for cell in others)
    return fill('<tr{}><th scope="row">{}</th>{}</tr>', Markup(' class="marked"') if marked else "", first, numbers)


def bar(text: str, share: float | None) -> Markup:
    """Write a number with a bar of its share below it, for the eye alone."""
    if share is None or not math.isfinite(share):
        return fill("{}", text)
    return fill('{}<span class="bar" style="--share:{:.1f}%"></span>', text, 100 * min(max(share, 0.0), 1.0))


def folded(summary: str, inner: Markup) -> Markup:
    """Hide what few need behind a line that opens it."""
    return fill("<details><summary>{}</summary>\n{}\n</details>", summary, inner)


def drawing(title: str, said: str, svg: str, note: Text = "", kind: str = "") -> Markup:
    """Show a plot with its title; `said` tells what is on it to those who do not see it.

    Args:
        title: above it.
        said: in its place.
        svg: our own, from `plots`.
        note: below it.
        kind: of figure, for the style: wide plots can be moved sideways.
    """
    picture = fill('<div role="img" aria-label="{}">{}</div>', said, Markup(svg))  # noqa: S704 - drawn by `plots`
    return fill(
        '<figure class="{}">\n<figcaption>{}</figcaption>\n{}\n{}</figure>',
        kind or "plot",
        title,
        scrolled(title, picture) if kind == "large" else picture,
        paragraph(note, "soft") if note else "",
    )


def short(name: str, most: int = MOST_LETTERS) -> str:
    """Take out the middle of a long name."""
    half = (most - 3) // 2
    return name if len(name) <= most else f"{name[:half]}...{name[-half:]}"
