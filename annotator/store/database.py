"""The database of a review: its tables, and one writer that commits the jobs of many threads.

SQLite in WAL mode with full sync, or PostgreSQL by URL. All writes of a process pass one thread, which takes the jobs
that are waiting into one transaction, each in a savepoint of its own, and answers after the commit: one sync to disk
serves them all, and what was answered is on disk. Between processes writes take turns: `BEGIN IMMEDIATE` in
SQLite, a transaction's advisory lock in PostgreSQL. Readers never wait.
"""

import contextlib
import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Identity,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.exc import DatabaseError, OperationalError

from rasura.annotator.store.team.tables import metadata
from rasura.manifests.errors import ReviewError

T = TypeVar("T")

VERSION = "1"
REVIEW, SECRET = "review", "secret"
"""Keys of the table `meta`: the id of the review, which everybody may see, and a secret, which nobody may."""
BATCH = 64  # jobs in one transaction at most
BUSY_MS = 10_000
_LOCK = 0x5241_5355_5241  # id of the advisory lock: "RASURA"
_KEY = BigInteger().with_variant(Integer, "sqlite")

meta = Table("meta", metadata, Column("key", String(32), primary_key=True), Column("value", Text, nullable=False))

items = Table(
    "items",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("row_id", Text, nullable=False),
    Column("flow", Text, nullable=False),  # the table that has its row
    Column("place_table", Text, nullable=False),  # the table, shard and row of its pictures
    Column("place_shard", Text, nullable=False),
    Column("place_row", Integer, nullable=False),
    Column("variant", String(16), nullable=False),
    Column("expected", String(8)),  # the known answer
    Column("label", Text),
    Column("remover", Text),
    Column("round", Integer),
    Column("score", Float),
    Column("dilation", Integer),  # px by which the remover dilated the mask
    Column("priority", Float, nullable=False),
    Column("withdrawn", Boolean, nullable=False, default=False),  # its row is no longer in the run
    # what the queue is ordered and filtered by; all of it follows from the log, the leases and the policy
    Column("needed", Integer, nullable=False),
    Column("votes", Integer, nullable=False, default=0),
    Column("leases", Integer, nullable=False, default=0),
    Column("free", Integer, nullable=False),
)
Index("waiting", items.c.priority, items.c.id, sqlite_where=items.c.free > 0, postgresql_where=items.c.free > 0)
_control = items.c.kind != "candidate"
Index("of_kind", items.c.kind, items.c.id, sqlite_where=_control, postgresql_where=_control)
Index("by_row", items.c.row_id)

turns = Table(  # the order of a scene's candidates, where they are asked best first
    "turns",
    metadata,
    Column("item", String(32), primary_key=True),
    Column("scene", Text, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("likely", Boolean, nullable=False),  # its score is not below the floor
    Column("complete", Boolean, nullable=False),  # its scene is asked completely
    Column("share", Float, nullable=False),  # of the scenes that are asked completely
)
Index("by_scene", turns.c.scene, turns.c.rank)

reviewers = Table(
    "reviewers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("token", String(64), unique=True),  # sha256 of it; null: cannot sign in
    Column("admin", Boolean, nullable=False, default=False),
    Column("dealt", Integer, nullable=False, default=0),  # items leased to this reviewer so far
    Column("created", Float, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(64), primary_key=True),  # sha256 of the cookie
    Column("reviewer", Integer, nullable=False),
    Column("expires", Float, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("item", String(32), primary_key=True),
    Column("reviewer", Integer, primary_key=True),
    Column("turn", Integer, nullable=False),
    Column("expires", Float, nullable=False),
    Column("live", Boolean, nullable=False),  # an expired one stays: a late vote still counts while the item needs it
    sqlite_with_rowid=False,
)
Index("by_expiry", leases.c.expires, sqlite_where=leases.c.live, postgresql_where=leases.c.live)
Index("by_holder", leases.c.reviewer, leases.c.turn)

log = Table(
    "log",
    metadata,
    Column("seq", _KEY, Identity(), primary_key=True),
    Column("time", Float, nullable=False),
    Column("item", String(32), nullable=False),
    Column("reviewer", Integer, nullable=False),
    Column("action", String(8), nullable=False),
    Column("verdict", String(8)),
    Column("reason", String(16)),
    Column("remark", Text),
    Column("seconds", Float),
    Column("replaces", _KEY),  # the entry that an edit, undo or skip is about
    Column("guidelines", String(16)),
    Column("version", String(32)),
    Column("nonce", String(64), nullable=False, unique=True),  # the sender's; the same one twice is the same entry
    sqlite_autoincrement=True,
)
Index("by_item", log.c.item, log.c.seq)

standing = Table(
    "standing",
    metadata,
    Column("item", String(32), primary_key=True),
    Column("reviewer", Integer, primary_key=True),
    Column("seq", _KEY, nullable=False),
    Column("verdict", String(8)),  # null: skipped
    UniqueConstraint("seq", name="one_entry"),
    sqlite_with_rowid=False,
)
Index("by_reviewer", standing.c.reviewer, standing.c.seq)

# Nobody changes the log, not even this program.
_APPEND_ONLY = (
    *(
        (
            "sqlite",
            f"CREATE TRIGGER log_no_{operation.lower()} BEFORE {operation} ON log "
            "BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END",
        )
        for operation in ("UPDATE", "DELETE")
    ),
    (
        "postgresql",
        "CREATE OR REPLACE FUNCTION log_only_grows() RETURNS trigger AS $$ "
        "BEGIN RAISE EXCEPTION 'the log is append-only'; END $$ LANGUAGE plpgsql",
    ),
    (
        "postgresql",
        "CREATE TRIGGER log_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON log "
        "FOR EACH STATEMENT EXECUTE FUNCTION log_only_grows()",
    ),
)
for _dialect, _statement in _APPEND_ONLY:
    event.listen(log, "after_create", DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]


class NoDatabase(ReviewError):
    """The review's database cannot be reached or is of another version."""


def create_database_engine(url: str, writes: bool) -> Engine:
    """Create an engine that begins transactions as a writer or a reader has to."""
    if url.startswith("postgresql"):
        engine = create_engine(url, pool_pre_ping=True, pool_size=1 if writes else 8, max_overflow=0 if writes else 8)

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            if writes:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

        return engine
    engine = create_engine(url, pool_size=1 if writes else 8, max_overflow=0 if writes else 8)

    @event.listens_for(engine, "connect")
    def _connect(raw: Any, _: object) -> None:
        raw.isolation_level = None  # or the driver begins transactions by itself
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_MS}", "cache_size=-65536"):
            raw.execute(f"PRAGMA {pragma}")
        if not writes:
            raw.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def _begin_sqlite(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextlib.contextmanager
def read_file(file: Path) -> Iterator[Connection]:
    """Open the SQLite file of a review for reading alone: nothing is created or changed, also beside it.

    Raises:
        NoDatabase: it cannot be read, or is of another version.
    """
    # a file without a log of writes beside it has no writer: then its folder need not be writable
    mode = "ro" if file.with_name(f"{file.name}-wal").exists() else "ro&immutable=1"
    engine = create_engine(f"sqlite:///file:{quote(str(file.absolute()))}?mode={mode}&uri=true")
    try:
        with engine.connect() as connection:
            version = connection.execute(select(meta.c.value).where(meta.c.key == "version")).scalar()
            if version not in (None, VERSION):
                raise NoDatabase(_describe_version(str(file), version))
            yield connection
    except DatabaseError as error:
        raise NoDatabase(f"the review's database cannot be read: {file}: {error.orig}") from None
    finally:
        engine.dispose()


def _describe_version(address: str, version: str) -> str:
    return f"{address} is a review of version {version}; this program reads and writes version {VERSION}"


def _draw_once(connection: Connection, key: str, count: int) -> str:
    """Return a value of the table `meta`: random bytes in hex, drawn where there is none yet."""
    value: str | None = connection.execute(select(meta.c.value).where(meta.c.key == key)).scalar()
    if value is None:
        value = secrets.token_hex(count)
        connection.execute(insert(meta).values(key=key, value=value))
    return value


def get_lock_file(file: Path) -> Path:
    """Return the place of the lock of an SQLite file's server."""
    return file.with_name(f".{file.name}.lock")


def resolve_url(where: str | Path) -> str:
    """Resolve the address of a database to the URL that SQLAlchemy takes.

    Args:
        where: a URL, or the path of an SQLite file.

    Raises:
        NoDatabase: a URL of a database that is not supported.

    Examples:
        >>> resolve_url("postgresql://review@db/rasura")
        'postgresql+psycopg://review@db/rasura'
    """
    text = str(where)
    if text.startswith(("postgresql://", "postgres://")):
        return "postgresql+psycopg://" + text.partition("://")[2]
    if "://" in text and not text.startswith(("sqlite:///", "postgresql+psycopg://")):
        raise NoDatabase(
            f"database '{text.partition('://')[0]}://…': give postgresql://… or the path of an SQLite file"
        )
    return text if "://" in text else f"sqlite:///{Path(text).absolute()}"


class Database:
    """The database of a review: many readers, one writer."""

    def __init__(self, where: str | Path, create: bool = True) -> None:
        """Open the database, and create its tables where there are none yet.

        Args:
            where: a URL, or the path of an SQLite file.
            create: True where an SQLite file may be created.

        Raises:
            NoDatabase: it cannot be reached, does not exist and may not be created, or is of another version.
        """
        self.url = resolve_url(where)
        if file := self.file:
            if not create and not file.exists():
                raise NoDatabase(f"there is no review at {file}; `rasura review RUN` begins one")
            file.parent.mkdir(parents=True, exist_ok=True)
        self.is_new = file is not None and not file.exists()
        self._writing, self._reading = create_database_engine(self.url, True), create_database_engine(self.url, False)
        try:
            with self._writing.begin() as connection:
                metadata.create_all(connection)
                version = connection.execute(select(meta.c.value).where(meta.c.key == "version")).scalar()
                if version is None:
                    connection.execute(insert(meta).values(key="version", value=VERSION))
                self.review_id = _draw_once(connection, REVIEW, 8)
                _draw_once(connection, SECRET, 32)
        except DatabaseError as error:
            self._dispose()
            raise NoDatabase(f"cannot open the review's database {self.address}: {error.orig}") from None
        if version not in (None, VERSION):
            self._dispose()
            raise NoDatabase(_describe_version(self.address, version))
        self._jobs: queue.SimpleQueue[tuple[Callable[[Connection], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="rasura-writer", daemon=True)
        self._thread.start()

    @property
    def file(self) -> Path | None:
        """The SQLite file; None where it is another database."""
        return Path(self.url.removeprefix("sqlite:///")) if self.url.startswith("sqlite:///") else None

    @property
    def address(self) -> str:
        """The URL without password."""
        return self._writing.url.render_as_string(hide_password=True)

    def submit(self, job: Callable[[Connection], T]) -> "Future[T]":
        """Queue a job for the writer, which runs it in a transaction; the future ends when that is on disk."""
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    def write(self, job: Callable[[Connection], T]) -> T:
        """Run a job in a transaction, and return its result when that is on disk."""
        return self.submit(job).result()

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection for reading, all of it as of one moment."""
        with self._reading.connect() as connection:
            yield connection

    def _work(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch = [first]
            with contextlib.suppress(queue.Empty):
                while len(batch) < BATCH:
                    following = self._jobs.get_nowait()
                    if following is None:
                        self._jobs.put(None)
                        break
                    batch.append(following)
            self._commit(batch)

    def _commit(self, batch: list[tuple[Callable[[Connection], Any], Future[Any]]]) -> None:
        done: list[tuple[Future[Any], Any]] = []
        failed: list[tuple[Future[Any], BaseException]] = []
        try:
            with self._writing.begin() as connection:
                for job, future in batch:
                    try:
                        with connection.begin_nested():
                            done.append((future, job(connection)))
                    except OperationalError:
                        raise  # the connection, not the job
                    except Exception as error:
                        failed.append((future, error))
        except Exception as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for future, result in done:
            future.set_result(result)
        for future, fault in failed:
            future.set_exception(fault)

    def delete(self) -> None:
        """Delete an SQLite file that was closed, what is beside it, and its folder where it is empty then."""
        if (file := self.file) is None:
            return
        for path in (file, *(file.with_name(f"{file.name}-{part}") for part in ("wal", "shm")), get_lock_file(file)):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            file.parent.rmdir()

    def close(self) -> None:
        """End the writer when its jobs are done, and close all connections."""
        self._jobs.put(None)
        self._thread.join()
        self._dispose()

    def _dispose(self) -> None:
        for engine in (self._writing, self._reading):
            engine.dispose()
