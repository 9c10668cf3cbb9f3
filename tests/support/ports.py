"""Ports of this machine that nobody listens to."""

import contextlib
import socket


def find_free_ports(count: int) -> list[int]:
    """Find ports that nobody listens to, all different. Another process may take one before it is used."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in found:
            free.bind(("127.0.0.1", 0))
        return [int(free.getsockname()[1]) for free in found]
