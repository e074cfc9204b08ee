"""The words of a command before they are parsed: options of the method, and names that options had before."""

from __future__ import annotations

import re

from fewlabels.config import flag_of, renamed
from fewlabels.errors import UserError

_METHOD_OPTION = "--method."
_DASHES = re.compile(r"--(no-)?([a-z-]+)(=.*)?")


def check_renamed(words: list[str]) -> None:
    """Check that no option has the name that it had before options were grouped.

    Raises:
        UserError: one has; it names the new one.
    """
    old = renamed()
    for word in words:
        found = _DASHES.fullmatch(word)
        if found and (name := found[2].replace("-", "_")) in old:
            group, dot, rest = flag_of(old[name]).rpartition(".")
            raise UserError(f"{word.partition('=')[0]} is now {group}{dot}{found[1] or ''}{rest}")


def split_method_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Part the method's own options, --method.OPTION VALUE or --method.OPTION=VALUE, from the others.

    Which options there are depends on the method, so the rest is parsed first and these second.
    """
    rest: list[str] = []
    own: list[str] = []
    waits = numeric = False  # whether the last option still waits for its value; whether its values are numbers
    for word in words:
        if word.startswith(_METHOD_OPTION):
            own.append(word)
            waits, numeric = "=" not in word, False
        elif (waits and not word.startswith("--")) or (numeric and _is_number(word)):
            own.append(word)
            waits, numeric = False, _is_number(word)
        else:
            rest.append(word)
            waits = numeric = False
    return rest, own


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
