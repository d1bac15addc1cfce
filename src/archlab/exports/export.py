"""Exporting: a kept model as a folder for programs that do not have archlab."""

import os
import shutil
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file

from archlab.errors import ArchlabError
from archlab.exports.hugging_face import write_hugging_face
from archlab.fields import checked
from archlab.scaling.models import TRIAL, WEIGHTS, KeptModel, find_model, load_model
from archlab.store.database import shown

Form = Literal["hf", "state-dict"]
"""A folder that transformers loads with ``trust_remote_code=True``, or the weights by their names in archlab's model."""


@checked
def export(
    run: str | KeptModel, folder: str | os.PathLike[str], to: Form = "hf", *, store: str | os.PathLike[str] = "archlab.db"
) -> Path:
    """Write a kept model into a new folder, whole or not at all, and return the folder.

    ``hf`` is a model of Hugging Face that needs torch and transformers, but not archlab: the code of its layers is cut out of
    archlab's source and lies beside ``modeling_archlab.py``; with tokenizer and model card. ``state-dict`` is
    ``model.safetensors`` alone. Both hold ``trial.json``: training run, recipe and result.

    Args:
        run: a kept model, or what :func:`archlab.scaling.load_model` finds it by.
        folder: a path that does not exist, or is an empty folder.
        to: ``"hf"`` or ``"state-dict"``.
        store: the store beside which the model was kept.

    Raises:
        ArchlabError: there is no such model, the folder has files or cannot be written, or the source of a layer from outside
            archlab cannot be included.
    """
    if not isinstance(run, KeptModel):
        find_model(run, store)
    place = Path(folder)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ArchlabError(f"folder {place}: is there already: give a new one")
    kept = run if isinstance(run, KeptModel) else load_model(run, store)
    unfinished = place.with_name(f"{place.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        if to == "hf":
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
