"""Work for workers that shall import next to nothing."""

import os
import signal
import sys

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
