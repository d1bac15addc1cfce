"""Architectures: the value and its text form, backbones with their accounting, the catalogue."""

from archlab.architectures.catalogue import CATALOGUE
from archlab.architectures.spec import Architecture, architecture

__all__ = ["CATALOGUE", "Architecture", "architecture"]
