"""The tables of the store."""

from sqlalchemy import JSON, Column, Float, Integer, LargeBinary, MetaData, String, Table, Text

SCHEMA_VERSION = 1
"""Raised by every release that changes a table; a table that is missing is made."""

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

owners = Table(
    "owners",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("machine", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started", Text, nullable=False),
    Column("heartbeat", Float, nullable=False, comment="Unix time"),
)

trials = Table(
    "trials",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(64), nullable=False, unique=True),
    Column("status", String(16), nullable=False, index=True),
    Column("owner", String(64), nullable=True),
    Column("trial", JSON, nullable=False),
    Column("error", Text, nullable=True),
    Column("provenance", JSON(none_as_null=True), nullable=True),
    Column("result", JSON(none_as_null=True), nullable=True),
    Column("numerators", LargeBinary, nullable=True, comment="zlib of little-endian float32"),
    Column("denominators", LargeBinary, nullable=True, comment="zlib of little-endian float32"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("plan", JSON, nullable=False),
)

language_models = Table(
    "language_models",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(64), nullable=False, unique=True),
    Column("status", String(16), nullable=False, index=True),
    Column("owner", String(64), nullable=True),
    Column("run", JSON, nullable=False),
    Column("error", Text, nullable=True),
    Column("provenance", JSON(none_as_null=True), nullable=True),
    Column("result", JSON(none_as_null=True), nullable=True),
)
