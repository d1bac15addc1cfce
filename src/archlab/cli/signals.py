"""How a command ends before its time."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from archlab.errors import Terminated


def status_of(stopped: BaseException) -> int:
    """The exit status of a command that ends before its time, as shells know it: 143 after a SIGTERM, 130 after Ctrl-C."""
    return 143 if isinstance(stopped, Terminated) else 130


@contextmanager
def terminable() -> Iterator[None]:
    """Treat a polite request to end like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the process is ending: no second request cuts that short
        raise Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is interrupt:
            signal.signal(signal.SIGTERM, before)
