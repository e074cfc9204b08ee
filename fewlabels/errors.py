"""Errors that are the user's to mend: what was given, what is allowed, how to mend it."""


class UserError(ValueError):
    """Bad input. The command line prints its text without a traceback and exits with code 2."""


class Interrupted(Exception):  # noqa: N818 - it is not an error: the work is saved
    """The run was asked to stop (Ctrl-C or a termination signal) and saved its state first."""
