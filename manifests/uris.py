"""Places where something is read or written: folders, and URIs of stores."""

import os

import fsspec

from rasura.manifests.errors import StorageError
from rasura.manifests.extras import describe_missing
from rasura.manifests.spelling import suggest

BUCKET_SCHEMES = ("s3", "gs")  # stores whose clients are extras; fsspec knows others
KNOWN_SCHEMES = (*BUCKET_SCHEMES, "gcs", "http", "https", "file")


MOST_BYTES, MOST_PART_BYTES = 4095, 255
"""Length of a path, and of one name in it, that file systems of Linux take at most."""
SHOWN_LETTERS = 60


def check_path(path: str) -> None:
    """Check that a text can be a path: that it has no NUL, and is not too long.

    Raises:
        StorageError: it cannot.

    Examples:
        >>> check_path("photos\\0.jpg")
        Traceback (most recent call last):
        rasura.manifests.errors.StorageError: 'photos\\x00.jpg' is no path: it has a NUL character; remove it
    """
    shown = path if len(path) <= SHOWN_LETTERS else f"{path[:SHOWN_LETTERS]}…"
    if "\0" in path:
        raise StorageError(f"{shown!r} is no path: it has a NUL character; remove it")
    if (size := len(os.fsencode(path))) > MOST_BYTES:
        raise StorageError(f"'{shown}' is no path: it has {size} bytes, and {MOST_BYTES} are possible; shorten it")
    longest = max(len(os.fsencode(part)) for part in path.split("/"))
    if longest > MOST_PART_BYTES:
        raise StorageError(
            f"'{shown}' is no path: a name in it has {longest} bytes, and {MOST_PART_BYTES} are possible; shorten it"
        )


def check_uri(uri: str) -> None:
    """Check that a place can be a folder, or a folder of a store that is known and whose client is installed.

    Raises:
        StorageError: it cannot. Nothing is read: whether the place is there, or may be written, is not checked.

    Examples:
        >>> check_uri("s3://")
        Traceback (most recent call last):
        rasura.manifests.errors.StorageError: 's3://' names no bucket; expected s3://BUCKET/FOLDER
    """
    check_path(uri)
    if not uri.removeprefix("file://").strip():
        raise StorageError(f"'{uri}' names no folder")
    scheme, _, rest = uri.partition(":/")
    if scheme in KNOWN_SCHEMES and not rest.startswith("/"):
        slashes = "//" if scheme == "file" else "/"
        raise StorageError(f"'{uri}' is neither a folder nor a URI; did you mean '{scheme}:/{slashes}{rest}'?")
    if "://" not in uri or scheme == "file":
        return
    try:
        fsspec.get_filesystem_class(scheme)
    except ValueError:
        nearest = suggest(scheme, BUCKET_SCHEMES)
        raise StorageError(f"'{uri}': no store is called '{scheme}'; {nearest} (or a folder of this machine)") from None
    except ImportError as error:
        missing = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        raise StorageError(f"'{uri}' cannot be read or written: {describe_missing(missing.name or scheme)}") from None
    if scheme in BUCKET_SCHEMES and not rest.removeprefix("/").partition("/")[0]:
        raise StorageError(f"'{uri}' names no bucket; expected {scheme}://BUCKET/FOLDER")
