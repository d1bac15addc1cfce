"""The one error a user can cause: its message names the field, the value and the fix."""

from collections.abc import Iterable
from difflib import get_close_matches

_MOST_SHOWN = 20
"""Known names that an error lists."""
_LONGEST_REASON = 2000
"""Characters of the message of an exception that its line keeps."""
_LONGEST_SHOWN = 100
"""Characters of an unknown name that an error shows, and compares."""


class ArchlabError(ValueError):
    """A request that cannot be met as written.

    The message is one line for the person who typed the request. The command line prints it and
    exits with status 2; nothing has been computed or written when it is raised.
    """

    def __init__(self, message: str) -> None:
        """Make the message one line, whatever names and values of others it holds."""
        super().__init__(" ".join(message.splitlines()))


class Terminated(KeyboardInterrupt):
    """A polite request to end (SIGTERM, as batch systems send), which commands treat like Ctrl-C."""


def in_one_line(error: BaseException) -> str:
    """The message of an exception, with its type unless it is meant for the person who typed the request.

    Layers and tasks of others raise exceptions too. Their messages are cut if they are long, characters that would command a
    terminal become spaces, and a message that raises an exception itself is left out.
    """
    try:
        text = str(error)
    except Exception:
        text = "its message cannot be had"
    if not isinstance(error, ArchlabError) and len(text) > _LONGEST_REASON:
        text = f"{text[:_LONGEST_REASON]} ..."
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if isinstance(error, ArchlabError) and line else f"{type(error).__name__}: {line}".rstrip(": ")


def unknown(kind: str, name: str, known: Iterable[str]) -> ArchlabError:
    """The error for a name that is not known: suggests the nearest name, else lists them all, or of many the nearest few.

    ``unknown("layer", "atention", names)`` reads: unknown layer 'atention': did you mean 'attention'?
    """
    names = sorted(known)
    start = name[:_LONGEST_SHOWN]
    close = get_close_matches(start, names, n=1, cutoff=0.6)
    shown = names if len(names) <= _MOST_SHOWN else sorted(get_close_matches(start, names, n=_MOST_SHOWN, cutoff=0.0))
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(shown) or 'none'}{more}"
    quoted = repr(name) if name == start else f"{start!r}..."
    return ArchlabError(f"unknown {kind} {quoted}: {hint}")
