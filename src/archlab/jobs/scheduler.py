"""The one loop that computes jobs: claim, submit, listen, store, stay alive."""

import queue
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from archlab.jobs.events import Listener, RunSummary
from archlab.jobs.executor import Executor
from archlab.jobs.policy import J, Policy, R
from archlab.jobs.running import POLL_SECONDS, Messages, Run
from archlab.store.ledger import Ledger, Record


def run(
    jobs: Iterable[J],
    store: Ledger[J, R],
    executor: Executor[J, Any, R],
    *,
    policy: Policy[J, R] | None = None,
    listeners: Sequence[Listener] = (),
    grace: float = 0.0,
    known: Sequence[Record[J, Any]] = (),
    shared: bool = False,
) -> RunSummary:
    """Compute those of the jobs that the store has no result for, and store every result as it comes.

    As many groups of jobs run at once as the executor has workers. Jobs that another run on the same store computes are
    waited for, and taken over if that run dies. A job that fails does not stop the others; the next run tries it again.
    Listeners are called with every event, in this thread. If the run ends early, running jobs have ``grace`` seconds to end by
    themselves, then the executor is shut down, the claims are given back and :class:`events.RunEnded` is sent. ``known`` are
    records of settled jobs that the caller has just read from the store, as whole as the policy needs them. Of a run that is
    ``shared`` with workers elsewhere a failure counts for all.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        ArchlabError: the store can no longer be written, or is gone; what it holds is intact.
    """
    messages: Messages = queue.SimpleQueue()
    one = Run(jobs, store, executor, messages, policy=policy, listeners=listeners, shared=shared)
    try:
        one.begin(known)
        while not one.is_over:
            one.submit(executor.num_workers - one.groups)
            listen([one], messages)
    except BaseException:
        executor.shutdown(grace)
        one.abort()
        raise
    one.end()
    return one.summary


def listen(runs: Iterable[Run[Any, Any]], messages: Messages) -> None:
    """Handle the next message, if one comes in time, and keep the runs alive in the eyes of others."""
    with suppress(queue.Empty):
        one, job, message = messages.get(timeout=POLL_SECONDS)
        one.take(job, message)
    for one in runs:
        one.beat()
