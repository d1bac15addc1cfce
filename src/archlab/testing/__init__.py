"""Contract suites that third parties run on their own layers and tasks."""

from archlab.testing.layers import LayerContract

__all__ = ["LayerContract"]
