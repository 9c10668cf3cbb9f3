"""Tables of what a team does beside judging: rulings, corrections, rankings, guidelines, drawings, tokens of programs.

They are created with the others. A database that an earlier version began lacks them until it is opened for writing;
readers ask `has_team_tables` first.
"""

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    event,
    inspect,
)

_KEY = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()  # of all tables of a review

details = Table(  # of an item, beside the columns of `items`
    "details",
    metadata,
    Column("item", String(32), primary_key=True),
    Column("task", String(16), nullable=False),  # what is asked about it, a word of `Task`
    Column("scene", Text, nullable=False),
)
Index("details_by_scene", details.c.scene)

rulings = Table(  # an expert's verdict on an item, in place of all others; follows from the log
    "rulings",
    metadata,
    Column("item", String(32), primary_key=True),
    Column("seq", _KEY, nullable=False),
    Column("reviewer", Integer, nullable=False),
    Column("verdict", String(8), nullable=False),
    Column("reason", String(16)),
)

corrections = Table(  # versions of the masks of an item; each belongs to an entry of the log
    "corrections",
    metadata,
    Column("seq", _KEY, primary_key=True, autoincrement=False),
    Column("item", String(32), nullable=False),
    Column("part", String(16), nullable=False),  # mask or foreground_mask
    Column("version", Integer, nullable=False),  # from 1, of this item and part
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("png", LargeBinary),  # 1-bit; null: the mask of the row again
    Column("steps", Integer, nullable=False),  # strokes and clicks that it took
)
Index("corrections_of", corrections.c.item, corrections.c.part, corrections.c.version, unique=True)

rankings = Table(  # the candidates of a scene side by side; nothing is ever changed, the last of a reviewer counts
    "rankings",
    metadata,
    Column("seq", _KEY, Identity(), primary_key=True),
    Column("time", Float, nullable=False),
    Column("reviewer", Integer, nullable=False),
    Column("scene", Text, nullable=False),
    Column("shown", Text, nullable=False),  # ids of the items, JSON, in the order of the screen
    Column("ranking", Text, nullable=False),  # groups of them, best first, JSON; empty: skipped
    Column("seconds", Float),
    Column("nonce", String(64), nullable=False, unique=True),
    sqlite_autoincrement=True,
)
Index("rankings_of", rankings.c.scene, rankings.c.reviewer)

scene_leases = Table(
    "scene_leases",
    metadata,
    Column("scene", Text, primary_key=True),
    Column("reviewer", Integer, primary_key=True),
    Column("expires", Float, nullable=False),
)

settings = Table(  # guidelines, reasons and labels: a version is never changed
    "settings",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("author", Integer, nullable=False),
    Column("value", Text, nullable=False),  # JSON
)

drawings = Table(  # versions of the ground of a photograph
    "drawings",
    metadata,
    Column("seq", _KEY, Identity(), primary_key=True),
    Column("time", Float, nullable=False),
    Column("reviewer", Integer, nullable=False),
    Column("photo", Text, nullable=False),  # its origin
    Column("version", Integer, nullable=False),
    Column("value", Text),  # JSON; null: none
    sqlite_autoincrement=True,
)
Index("drawings_of", drawings.c.photo, drawings.c.version, unique=True)

pushed = Table(  # items that a program or an admin has asked for first
    "pushed",
    metadata,
    Column("item", String(32), primary_key=True),
    Column("priority", Float, nullable=False),
)

experts = Table(
    "experts",
    metadata,
    Column("reviewer", Integer, primary_key=True),
)

tokens = Table(  # of programs
    "tokens",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("reviewer", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # separated by spaces
    Column("created", Float, nullable=False),
    Column("revoked", Boolean, nullable=False, default=False),
)

TEAM_TABLES = tuple(metadata.sorted_tables)

# As with the log, nobody changes what people gave.
for _table in (corrections, rankings, settings, drawings):
    for _operation in ("UPDATE", "DELETE"):
        _trigger = (
            f"CREATE TRIGGER {_table.name}_no_{_operation.lower()} BEFORE {_operation} ON {_table.name} "
            f"BEGIN SELECT RAISE(ABORT, '{_table.name} only grow'); END"
        )
        event.listen(_table, "after_create", DDL(_trigger).execute_if(dialect="sqlite"))  # type: ignore[no-untyped-call]
    _function = (
        f"CREATE OR REPLACE FUNCTION {_table.name}_only_grow() RETURNS trigger AS $$ "
        f"BEGIN RAISE EXCEPTION '{_table.name} only grow'; END $$ LANGUAGE plpgsql"
    )
    _trigger = (
        f"CREATE TRIGGER {_table.name}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {_table.name} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {_table.name}_only_grow()"
    )
    for _statement in (_function, _trigger):
        event.listen(_table, "after_create", DDL(_statement).execute_if(dialect="postgresql"))  # type: ignore[no-untyped-call]


def has_team_tables(connection: Connection) -> bool:
    """Return True where a database has the tables of this module."""
    return bool(inspect(connection).has_table(tokens.name))
