"""A committed file: what its commit record says of it, and whether it is still what was committed."""

import hashlib
import io
from dataclasses import asdict, dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rasura.manifests.storage import Store, StoreError

TAIL_BYTES = 64 * 2**10
"""Size of the end of a file that is read for its footer: larger footers cost a second read."""
TRAILER_BYTES = 8  # length of the footer, and Parquet's signature


@dataclass(frozen=True)
class File:
    """A committed file.

    Attributes:
        name: from the folder of its table.
        sha256: of all of it.
        bytes: its size.
        rows: their number.
        footer: sha256 of the Parquet footer. Each page has a checksum of its own, so that single rows are checked when
            they are read. None where the version that wrote the file had no checksums: its whole is checked.
    """

    name: str
    sha256: str
    bytes: int
    rows: int
    footer: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the values that the commit record has."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def find_footer(tail: bytes) -> bytes:
    """Return the footer at the end of a Parquet file, with what follows it; all of `tail` where it is longer."""
    length = int.from_bytes(tail[-TRAILER_BYTES:-4], "little") + TRAILER_BYTES
    return tail[-length:]


def hash_file(source: IO[bytes]) -> str:
    """Compute the sha256 of an open file, a part at a time."""
    source.seek(0)
    digest = hashlib.sha256()
    while part := source.read(2**20):
        digest.update(part)
    return digest.hexdigest()


def read_footer(source: IO[bytes], file: File) -> pq.FileMetaData:
    """Read the footer of a committed file, and check that it is the one that was committed.

    Args:
        source: the file, open.
        file: what its commit record says of it.

    Raises:
        ValueError: it is another one, or was changed or cut; so is a file of an earlier version as a whole.
    """
    size = source.seek(0, io.SEEK_END)
    if size != file.bytes:
        raise ValueError(f"it has {size} bytes, and {file.bytes} were committed")
    if file.footer is None:
        if hash_file(source) != file.sha256:
            raise ValueError("its bytes are not those that were committed")
        source.seek(0)
        return pq.read_metadata(source)
    source.seek(max(0, size - TAIL_BYTES))
    footer = find_footer(source.read(TAIL_BYTES))
    if len(footer) == min(size, TAIL_BYTES):  # it is longer than what was read
        source.seek(0)
        footer = find_footer(source.read(size))
    if hashlib.sha256(footer).hexdigest() != file.footer:
        raise ValueError("its footer is not the one that was committed")
    return pq.read_metadata(pa.BufferReader(footer))


def is_intact(store: Store, file: File) -> bool:
    """Return whether all bytes of a committed file are those that were committed.

    Raises:
        StoreError: the store cannot be read.
    """
    try:
        with store.open(file.name) as source:
            return hash_file(source) == file.sha256
    except FileNotFoundError:
        return False
    except StoreError:
        raise
    except OSError as error:  # a disk that cannot be read now is no damaged file
        raise StoreError(f"cannot read {store.location}/{file.name}: {error.strerror or error}") from error
