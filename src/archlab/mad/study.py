"""A study in a file that can be committed: architectures with labels, the protocol and the seeds.

::

    protocol: quick            # a protocol of the package, or the path of a YAML file beside this one
    seeds: 3                   # how many, or a list; by default the protocol's
    tasks: [in-context-recall, selective-copying]   # by default all of the protocol
    settings: base             # base or all, the default
    set: {recipe.steps: 2000}  # as --set
    architectures:             # a mapping of labels to specs, or a list of specs
      wide: 2*[mamba(d_state=32) swiglu]
      baseline: transformer++
"""

from dataclasses import replace
from pathlib import Path

from archlab.architectures import Architecture, architecture
from archlab.errors import ArchlabError
from archlab.fields import items, mapping, naming, read_yaml
from archlab.mad.protocol import Protocol, load_protocol

_FIELDS = ("protocol", "seeds", "tasks", "settings", "set", "architectures")


def read_study(path: str | Path) -> tuple[Protocol, list[Architecture]]:
    """The protocol and the labelled architectures of a study's file.

    Raises:
        ArchlabError: the file cannot be read, or a field is unknown or wrong; the message names file and field.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "not text in UTF-8" if isinstance(error, UnicodeDecodeError) else (error.strerror or "no such file").lower()
        raise ArchlabError(f"study {path}: cannot be read: {reason}") from None
    with naming(f"study {path}"):
        values = mapping("a study", read_yaml(text), _FIELDS)
        for field in ("protocol", "architectures"):
            if field not in values:
                raise ArchlabError(f"{field} is missing")
        protocol = _protocol(values, path.parent)
        given = values["architectures"]
        if isinstance(given, dict):
            specs = list(mapping("architectures", given).items())
        else:
            specs = [("", spec) for spec in items("architectures", given)]
        found = []
        for label, spec in specs:
            if not isinstance(spec, str):
                raise ArchlabError(f"architectures: {spec!r}: give a spec, as in {label or 'mine'}: mamba swiglu")
            value = architecture(spec, layer_defaults=protocol.layer_defaults)
            found.append(replace(value, name=label) if label else value)
    return protocol, found


def _protocol(values: dict[str, object], folder: Path) -> Protocol:
    name = values["protocol"]
    if not isinstance(name, str):
        raise ArchlabError(f"protocol={name!r}: give a name, or the path of a YAML file")
    beside = folder / name
    protocol = load_protocol(str(beside) if name.endswith((".yaml", ".yml")) and beside.exists() else name)
    if "tasks" in values:
        protocol = protocol.with_tasks(items("tasks", values["tasks"]))
    if values.get("settings", "all") not in ("all", "base"):
        raise ArchlabError(f"settings={values['settings']!r}: choose base or all")
    if values.get("settings") == "base":
        protocol = protocol.with_base_settings()
    if "seeds" in values:
        seeds = values["seeds"]
        protocol = protocol.with_seeds(range(seeds) if type(seeds) is int else items("seeds", seeds))
    for key, value in mapping("set", values.get("set")).items():
        protocol = protocol.with_value(key, value)
    return protocol
