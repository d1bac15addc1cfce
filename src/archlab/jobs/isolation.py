"""The state of a process that one job could leave changed for the next."""


def snapshot() -> object:
    """The present state."""
    return None


def changed(before: object) -> str:
    """The first difference to a snapshot in one line; empty if there is none."""
    return ""
