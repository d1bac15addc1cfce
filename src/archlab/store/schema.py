"""The tables of the store."""

from sqlalchemy import JSON, Column, Float, Integer, LargeBinary, MetaData, String, Table, Text

SCHEMA_VERSION = 1
"""Raised by every release that changes a table, see :mod:`archlab.store.maintenance`; a table that is missing is made."""

metadata = MetaData()

meta = Table("meta", metadata, Column("name", String(64), primary_key=True), Column("value", Text, nullable=False))

owners = Table(
    "owners",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("machine", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started", Text, nullable=False),
    Column("heartbeat", Float, nullable=False, comment="Unix time"),
)


def _claimed(name: str, what: str, *more: "Column[bytes]") -> Table:
    """A table of what processes claim, compute and fill in; ``what`` is the column that says what is computed."""
    return Table(
        name,
        metadata,
        Column("id", Integer, primary_key=True),
        Column("key", String(64), nullable=False, unique=True),
        Column("status", String(16), nullable=False, index=True),
        Column("owner", String(64), nullable=True),
        Column(what, JSON, nullable=False),
        Column("error", Text, nullable=True),
        Column("provenance", JSON(none_as_null=True), nullable=True),
        Column("result", JSON(none_as_null=True), nullable=True),
        *more,
    )


trials = _claimed(
    "trials",
    "trial",
    Column("numerators", LargeBinary, nullable=True, comment="zlib of little-endian float32"),
    Column("denominators", LargeBinary, nullable=True, comment="zlib of little-endian float32"),
)

language_models = _claimed("language_models", "run")

imported_runs = _claimed("imported_runs", "run")

runs = Table("runs", metadata, Column("id", Integer, primary_key=True), Column("plan", JSON, nullable=False))

submissions = Table(
    "submissions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", Integer, nullable=True, comment="number in runs"),
    Column("kind", String(16), nullable=False, comment="as that of runs"),
    Column("priority", Integer, nullable=False),
    Column("status", String(16), nullable=False, comment="open, ended or withdrawn"),
    Column("what", JSON, nullable=False),
    Column("keys", JSON, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", Integer, nullable=False, index=True, comment="number in runs"),
    Column("owner", String(64), nullable=False),
    Column("begun", JSON, nullable=False, comment="when, where and on which versions"),
    Column("ended", JSON(none_as_null=True), nullable=True, comment="when, and how"),
)
