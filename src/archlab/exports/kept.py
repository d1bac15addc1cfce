"""Kept models of both kinds by their names: of trials, and of training runs of language models."""

import os
from typing import Any

from archlab.errors import ArchlabError
from archlab.fields import checked
from archlab.machine import Device
from archlab.mad import models as trials
from archlab.mad.models import KeptTrial
from archlab.mad.store import TrialStore
from archlab.mad.trial import Trial
from archlab.scaling import models as training_runs
from archlab.scaling.models import KeptModel
from archlab.store.kept import KeptFiles, beside, only


@checked
def load_model(run: str, store: str | os.PathLike[str] = "archlab.db", *, device: Device = "cpu") -> KeptModel | KeptTrial:
    """Load the model of a training run, or of a trial, that was kept beside a store.

    ``archlab scale run`` and :func:`archlab.scaling.train` keep the models of training runs; ``archlab run --keep weights`` and
    :func:`archlab.run` with ``keep="weights"`` those of trials.

    Args:
        run: the beginning of its key; or its architecture's label, alone or with more: of a training run the number of
            parameters as tables show it (``mamba@13.2k``; within 5 %), of a trial the task or setting
            (``mamba@in-context-recall``), which names the grid point that is scored.
        store: the store beside which it was kept.
        device: where the weights go, ``"cpu"`` or ``"cuda"``.

    Returns:
        ``model``, from token ids ``(batch, length)`` to logits ``(batch, length, vocab_size)``, in evaluation mode; with its
        ``trial``, ``result``, ``key`` and ``folder``.

    Raises:
        ArchlabError: none is called so, or several are; its files are damaged, or do not fit the layers of this archlab.
    """
    of_trials, of_runs = trials.trial_models(store), training_runs.language_models(store)
    if not of_trials and not of_runs:
        with TrialStore(store, create=False):  # which says that there is none
            pass
        fix = "`archlab run --keep weights` and `archlab scale run` keep those that they train"
        raise ArchlabError(f"{beside(store, 'models')} has no models: {fix}")
    titles = {one.key: trials.title(one) for one in of_trials} | {one.key: training_runs.title(one) for one in of_runs}
    kept: list[KeptFiles[Any, Any]] = [*of_trials, *of_runs]
    found: list[KeptFiles[Any, Any]] = [*trials.matching(run, of_trials), *training_runs.matching(run, of_runs)]
    how = " or ".join([trials.NAMES] * bool(of_trials) + [training_runs.NAMES] * bool(of_runs))
    one = only(run, found, kept, lambda each: titles[each.key], how)
    return trials.load(one, device) if isinstance(one.trial, Trial) else training_runs.load(one, device)
