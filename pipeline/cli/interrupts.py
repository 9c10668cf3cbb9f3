"""The end of a command by Ctrl-C, SIGTERM or SIGHUP: one sentence that says how to go on, and an exit status."""

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


def raise_on_signals() -> None:
    """Have SIGTERM and SIGHUP raise `KeyboardInterrupt` here, so that all that cleans up after Ctrl-C does so.

    A SIGHUP that is ignored, as by `nohup`, stays so. A process forked from this one ends by them as by default.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    owner = os.getpid()

    def handle(number: int, frame: object) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        for other in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)  # a second one would end the cleaning up
        _received.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handle)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # the terminal or the connection has gone
        signal.signal(signal.SIGHUP, handle)


def get_exit_status() -> int:
    """Return the exit status of a command that was stopped, as shells count it: by a signal, or else by Ctrl-C.

    Examples:
        >>> get_exit_status()
        130
    """
    return 128 + (_received[-1] if _received else signal.SIGINT)


@contextlib.contextmanager
def explain_interrupt(text: str = STOPPED) -> Iterator[None]:
    """Print after Ctrl-C or a signal how to go on, and end with its exit status."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # after SIGHUP there may be no terminal
            print(text, file=sys.stderr)
        sys.exit(get_exit_status())
