"""The functions that the command line and notebooks read results with. Apart, so that they do not wait for PyTorch."""

import os

from archlab.fields import checked
from archlab.mad.protocol import Protocol
from archlab.mad.results import Results
from archlab.mad.scores import Scores


@checked
def open(store: str | os.PathLike[str] = "archlab.db") -> Results:
    """Open a store for reading: its runs, trials and scores.

    Raises:
        ArchlabError: there is no store.
    """
    return Results(store)


@checked
def report(scores: Scores, path: str | os.PathLike[str] = "report.html", *, protocol: Protocol | None = None) -> None:
    """Write scores as a page: one HTML file that needs nothing but itself, and no network.

    Args:
        scores: what :func:`run` and :meth:`archlab.mad.results.Results.scores` give.
        path: the file.
        protocol: the protocol that the page describes; by default none.

    Raises:
        ArchlabError: nothing can be written there.
    """
    from archlab.reports.html import render_report, write_page

    write_page(path, lambda: render_report(scores, protocol))
