"""What an architecture is: the spec value and its text form, backbones, catalogue."""

from archlab.architectures.catalogue import CATALOGUE
from archlab.architectures.spec import Architecture, architecture

__all__ = ["CATALOGUE", "Architecture", "architecture"]
