"""Packages that only some corpora need."""

import importlib
from typing import Any

from archlab.errors import ArchlabError


def optional_module(name: str, what: str) -> Any:
    """A module of the ``hf`` extra.

    Raises:
        ArchlabError: it is not installed; says what needs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ArchlabError(f"{what} needs the package {name.partition('.')[0]}: pip install 'archlab[hf]'") from None
