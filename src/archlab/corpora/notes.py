"""Notes on a corpus that was read: what was left out of it, and what was changed."""

_SHOWN = 3
"""Places that a line names."""


class Notes:
    """Counts what happened while documents were read, with the first places."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, what: str, place: object) -> None:
        """Count one more of ``what``, a plural such as ``"images left out"``."""
        self._counts[what] = self._counts.get(what, 0) + 1
        if len(places := self._places.setdefault(what, [])) < _SHOWN:
            places.append(str(place))

    def lines(self) -> list[str]:
        """Return a line for each kind, as ``"images left out: 12, first a.png, b.png, c.png"``."""
        return [f"{what}: {self._counts[what]:,}, first {', '.join(places)}" for what, places in self._places.items()]
