"""The address of the server: the socket that it listens on, and the URL that reviewers type."""

import socket
from urllib.parse import urlsplit

from rasura.manifests.errors import ReviewError

EVERY_ADDRESS = ("0.0.0.0", "::")


class BadAddress(ReviewError):
    """An address that nothing can be served at, or that no browser takes."""


def parse_public_url(url: str) -> str:
    """Parse the address that reviewers type, without a slash at its end.

    Raises:
        BadAddress: it is not http(s)://host or http(s)://host:port.

    Examples:
        >>> parse_public_url("https://review.example/")
        'https://review.example'
    """
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_right = False
    if not is_right or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise BadAddress(
            f"--public-url {url}: give the address that reviewers type, http(s)://HOST or http(s)://HOST:PORT, "
            "without a path"
        )
    return f"{parts.scheme}://{parts.netloc}"


def format_url(host: str, port: int) -> str:
    """Format the address of a server as this machine's browser takes it.

    Examples:
        >>> format_url("0.0.0.0", 8765), format_url("::1", 80)
        ('http://127.0.0.1:8765', 'http://[::1]:80')
    """
    name = "127.0.0.1" if host in EVERY_ADDRESS else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def bind_socket(host: str, port: int) -> socket.socket:
    """Bind a socket to serve at.

    Args:
        host: a name or an address of this machine.
        port: 0 for a free one.

    Raises:
        BadAddress: the port is taken or not allowed, or the host is not this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise BadAddress(f"--host {host}: no such host; {_describe_hosts()}") from None
    # asyncio sends at once (TCP_NODELAY) only where the protocol is named: else small answers wait 40 ms
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except PermissionError:
        bound.close()
        raise BadAddress(f"--port {port}: this user may not serve at it; choose one above 1023") from None
    except OSError as error:
        bound.close()
        if _is_address_of_this_machine(family, str(address[0])):
            raise BadAddress(
                f"--port {port}: {error.strerror} at {host}; choose another port, or 0 for a free one"
            ) from None
        raise BadAddress(f"--host {host}: not an address of this machine; {_describe_hosts()}") from None
    return bound


def _describe_hosts() -> str:
    return "give 127.0.0.1 for this machine alone, or 0.0.0.0 to be reached from others"


def _is_address_of_this_machine(family: int, address: str) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
