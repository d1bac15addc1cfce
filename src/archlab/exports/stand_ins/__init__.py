"""Modules that take the place of archlab's own in an exported model: they are copied, never imported here."""
