"""Stopping between two steps: Ctrl-C and termination signals are noted, and acted on when all is consistent."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted_signals() -> Generator[Callable[[], bool]]:
    """Give a function that tells whether the run was asked to stop; a second Ctrl-C stops at once.

    Outside the main thread signals cannot be caught, and the function always says no.
    """
    asked = False
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del frame
        if asked:
            raise KeyboardInterrupt
        asked = True
        # Of several processes the first speaks, and none where torchrun ends what another one has left.
        if not several or (number == signal.SIGINT and os.environ.get("RANK") == "0"):
            print("stopping at the next safe point; once more to stop at once", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    except Exception:
        if several:  # torchrun ends what is left of them, which must not cut what this one has to say
            del before[signal.SIGTERM]
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
