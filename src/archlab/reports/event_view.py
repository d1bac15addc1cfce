"""What shows the events of a run: a live view on a terminal, single lines elsewhere."""

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Generic, Self, TypeVar

from rich.console import Console, RenderableType
from rich.live import Live

MAX_WIDTH = 100
MAX_RUNNING = 8
"""Trainings under way that are shown."""

Event = TypeVar("Event", contravariant=True)


class EventView(ABC, Generic[Event]):
    """Shows the events of a run on a console; a context manager, and the runner's ``on_event``."""

    def __init__(self, console: Console, refresh_per_second: float) -> None:
        """A terminal gets the live view, anything else a line for every event that matters."""
        self.console = console
        self._lock = threading.Lock()  # events come in one thread, the view is drawn in another
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(console=console, refresh_per_second=refresh_per_second, transient=True, get_renderable=self.render)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take in an event; without a terminal, print a line for those that matter."""
        with self._lock:
            line = self._take(event)
        if line and self._live is None:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def render(self) -> RenderableType:
        """The live view as of now."""
        with self._lock:
            return self._draw()

    @abstractmethod
    def _take(self, event: Event) -> str | None:
        """Remember an event; the line that stands for it, if it matters."""

    @abstractmethod
    def _draw(self) -> RenderableType:
        """What is under way and left."""
