"""Work for workers that shall import next to nothing."""

import math
import os
import signal
import sys
import time

from archlab.errors import ArchlabError


def look_around(wishes, on_progress, thresholds):
    """Answer whether torch is loaded, with how many threads it would run, and which GPUs it would see."""
    seen = {
        "torch": "torch" in sys.modules,
        "threads": {os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "interrupt": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        "blocked": signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "pid": os.getpid(),
    }
    raise ArchlabError(repr(seen))


def leave(wishes, on_progress, thresholds):
    """Take the worker along, with a status."""
    os._exit(3)


def quit_program(wishes, on_progress, thresholds):
    """End as scripts do, or as if somebody had pressed Ctrl-C."""
    raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}[wishes[0]]
    yield


def until_stopped(wishes, on_progress, thresholds):
    """Compute the first of three jobs until it is stopped, the second for a while, and end the third."""
    while thresholds[0].get(7, math.inf) > -math.inf:
        on_progress(0, 1)
        time.sleep(0.01)
    assert dict(thresholds[2]) == {}
    on_progress(1, 1)
    time.sleep(0.3)  # nobody asks for its thresholds any more
    yield 2, wishes[2].value
