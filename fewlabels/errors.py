"""Errors that are the user's to mend: what was given, what is allowed, how to mend it."""

from collections.abc import Sequence


class UserError(ValueError):
    """Bad input. The command line prints its text without a traceback and exits with code 2."""


class Interrupted(Exception):  # noqa: N818 - it is not an error: the work is saved
    """The run was asked to stop (Ctrl-C or a termination signal) and saved its state first."""


def all_of(name: str, problems: Sequence[str], mend: str = "", most: int = 20) -> UserError:
    """Make one error of all problems of `name`: in one line where there is one, else a line each.

    Args:
        name: what has the problems.
        problems: each without a full stop.
        mend: what to do about them, a sentence.
        most: problems that are shown; of the others the number is.
    """
    if len(problems) == 1:
        return UserError(f"{name}: {problems[0]}. {mend}".rstrip())
    lines = [f"{name}: {len(problems)} problems", *(f"  - {problem}" for problem in problems[:most])]
    lines += [f"  - and {len(problems) - most} more"] if len(problems) > most else []
    return UserError("\n".join([*lines, mend]).rstrip())
