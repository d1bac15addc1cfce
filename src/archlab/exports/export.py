"""Exporting: a kept model as a folder for programs that do not have archlab."""

import os
import shutil
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file

from archlab.errors import ArchlabError
from archlab.exports.hugging_face import write_hugging_face
from archlab.exports.kept import load_model
from archlab.fields import checked
from archlab.mad.models import KeptTrial
from archlab.scaling.models import KeptModel
from archlab.store.database import shown
from archlab.store.kept import TRIAL, WEIGHTS

Form = Literal["hf", "state-dict"]
"""A folder that transformers loads with ``trust_remote_code=True``, or the weights by their names in archlab's model."""


@checked
def export(
    run: str | KeptModel | KeptTrial,
    folder: str | os.PathLike[str],
    to: Form = "hf",
    *,
    store: str | os.PathLike[str] = "archlab.db",
) -> Path:
    """Write a kept model into a new folder, whole or not at all, and return the folder.

    ``hf`` is a model of Hugging Face that needs torch and transformers, but not archlab: the code of its layers is cut out of
    archlab's source and lies beside ``modeling_archlab.py``; with tokenizer and model card. ``state-dict`` is
    ``model.safetensors`` alone, of language models and of trials. Both hold ``trial.json``: training run or trial, recipe and
    result.

    Args:
        run: a kept model, or what :func:`archlab.load_model` finds it by.
        folder: a path that does not exist, or is an empty folder.
        to: ``"hf"`` or ``"state-dict"``.
        store: the store beside which the model was kept.

    Raises:
        ArchlabError: there is no such model, the folder has files or cannot be written, the source of a layer from outside
            archlab cannot be included, or a trial is to become a model of Hugging Face, for it has no tokenizer.
    """
    kept = load_model(run, store) if isinstance(run, str) else run
    place = Path(folder)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ArchlabError(f"folder {place}: is there already: give a new one")
    if to == "hf" and isinstance(kept, KeptTrial):
        raise ArchlabError(f"run {kept}: a trial has no tokenizer and no text to continue: choose state-dict (--to state-dict)")
    unfinished = place.with_name(f"{place.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        if isinstance(kept, KeptModel) and to == "hf":
            write_hugging_face(kept, shown(os.fspath(store)), unfinished)
        else:
            save_file(
                {name: tensor.contiguous().clone() for name, tensor in kept.model.state_dict().items()}, unfinished / WEIGHTS
            )
        shutil.copyfile(kept.folder / TRIAL, unfinished / TRIAL)
        unfinished.replace(place)
    except OSError as error:
        raise ArchlabError(f"folder {place}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return place
