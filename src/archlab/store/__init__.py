"""The results database: trials, who computes them, and what they gave."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archlab.store.language_models import LanguageModelRecord, LanguageModelStore
    from archlab.store.location import NoStoreError
    from archlab.store.provenance import environment
    from archlab.store.record import Record, Status
    from archlab.store.store import Store

__all__ = ["LanguageModelRecord", "LanguageModelStore", "NoStoreError", "Record", "Status", "Store", "environment"]

_HOMES = {
    "LanguageModelRecord": "language_models",
    "LanguageModelStore": "language_models",
    "NoStoreError": "location",
    "Record": "record",
    "Status": "record",
    "Store": "store",
    "environment": "provenance",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: SQLAlchemy takes a quarter of a second to import.
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f"archlab.store.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'archlab.store' has no attribute {name!r}")
