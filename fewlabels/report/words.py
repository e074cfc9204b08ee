"""How numbers and names are written, in the terminal and in the report alike."""

from __future__ import annotations

MOST_LETTERS = 60  # of a name from the user's data; longer ones lose their middle


def percent(value: float | None) -> str:
    """Write a fraction as a percentage; None as unknown."""
    return "not known" if value is None else f"{100 * value:.1f} %"


def points_of(value: float) -> str:
    """Write a difference of two fractions in points."""
    return f"{100 * value:+.1f}"


def count(number: int, what: str) -> str:
    """Write a number of things: 1 image, 2 images, 2 classes."""
    return f"{number:,} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"


def number(value: float | None, form: str) -> str:
    """Write a number in a form; None as a dash."""
    return "-" if value is None else format(value, form)


def short(name: str, most: int = MOST_LETTERS) -> str:
    """Take out the middle of a long name."""
    half = (most - 3) // 2
    return name if len(name) <= most else f"{name[:half]}...{name[-half:]}"
