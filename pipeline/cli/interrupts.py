"""The end of a command by Ctrl-C or SIGTERM: one sentence that says how to go on, and an exit status."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

STOPPED = "stopped; the same command continues from there"
"""Message after Ctrl-C or SIGTERM."""


_received: list[int] = []
"""Numbers of the signals that ended this process; libraries raise a KeyboardInterrupt of their own in place of ours."""


def raise_on_sigterm() -> None:
    """Have SIGTERM raise `KeyboardInterrupt` in this process, so that all that cleans up after Ctrl-C does so.

    A process that is forked from this one ends by SIGTERM as by default.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    owner = os.getpid()

    def handle(number: int, frame: object) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        signal.signal(number, signal.SIG_IGN)  # a second one would end the cleaning up
        _received.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handle)


def get_exit_status() -> int:
    """Return the exit status of a command that was stopped, as shells count it: by SIGTERM, or else by Ctrl-C.

    Examples:
        >>> get_exit_status()
        130
    """
    return 128 + (_received[-1] if _received else signal.SIGINT)


@contextlib.contextmanager
def explain_interrupt(text: str = STOPPED) -> Iterator[None]:
    """Print after Ctrl-C or SIGTERM how to go on, and end with its exit status."""
    try:
        yield
    except KeyboardInterrupt:
        print(text, file=sys.stderr)
        sys.exit(get_exit_status())
