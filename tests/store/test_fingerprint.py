import importlib
import sys
import types
from itertools import count
from pathlib import Path

import pytest
from tests.mad.trials import COPYING, trial

from archlab.errors import ArchlabError
from archlab.sources import import_file
from archlab.store import fingerprint as trial_module
from archlab.store.fingerprint import code_fingerprint

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "custom_layer.py"
_NUMBERS = count()  # no name twice: modules are imported and read once
CODE = '''"""What it is."""
from dataclasses import dataclass
from .helper import twice

@dataclass
class Thing:
    """A thing."""
    size: int = 1
    """How large."""

    def grown(self) -> int:
        """Larger."""
        return twice(self.size)  # by two
'''


@pytest.fixture(name="fingerprint")
def fixture_fingerprint(tmp_path, monkeypatch):
    """The fingerprint of a package's module ``thing``, given the code of its files."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def of(**files: str) -> str:
        name = f"some_package_{next(_NUMBERS)}"
        (tmp_path / name).mkdir()
        for file, code in ({"__init__": "", "helper": "def twice(x): return 2 * x\n"} | files).items():
            (tmp_path / name / f"{file}.py").write_text(code)
        importlib.invalidate_caches()
        return code_fingerprint(f"{name}.thing")

    return of


def test_formatting_comments_and_docstrings_do_not_count(fingerprint):
    bare = CODE
    for line in (
        '    """A thing."""\n',
        '    """How large."""\n',
        '        """Larger."""\n',
        '"""What it is."""\n',
        "  # by two",
    ):
        assert line in bare
        bare = bare.replace(line, "")
    assert fingerprint(thing=CODE) == fingerprint(thing=bare)
    assert fingerprint(thing=CODE) == fingerprint(thing=CODE.replace("twice(self.size)", "(twice( self.size ))"))


def test_code_counts(fingerprint):
    assert fingerprint(thing=CODE) != fingerprint(thing=CODE.replace("= 1", "= 2"))
    assert fingerprint(thing=CODE) != fingerprint(thing=CODE + "\nx = 'a string that is a value'\n")


def test_code_of_imported_modules_counts(fingerprint):
    base = fingerprint(thing=CODE)
    assert base != fingerprint(thing=CODE, helper="def twice(x): return x + x\n")
    assert base == fingerprint(thing=CODE, other="never_imported = 1\n")
    deep = {"thing": CODE, "helper": "from .deeper import twice\n"}
    assert fingerprint(**deep, deeper="def twice(x): return 2 * x\n") != fingerprint(
        **deep, deeper="def twice(x): return x + x\n"
    )


def test_nothing_is_imported_and_modules_may_import_each_other(fingerprint):
    loop = {"thing": CODE, "helper": "from . import thing\ndef twice(x): return x\n"}
    assert fingerprint(**loop) != fingerprint(thing=CODE)
    unusable = {"thing": f"try:\n    from .kernels import fast\nexcept ImportError:\n    fast = None\n{CODE}"}
    first = fingerprint(**unusable, kernels="raise RuntimeError('needs a GPU')\n")
    assert first != fingerprint(**unusable, kernels="raise RuntimeError('needs another GPU')\n")


def test_modules_beside_a_single_file_count(tmp_path, monkeypatch):
    def fingerprint_beside(folder: str, helper: str) -> str:
        home, name = tmp_path / str(next(_NUMBERS)) / folder, f"single_file_{next(_NUMBERS)}"
        home.mkdir(parents=True)
        (home / f"{name}.py").write_text("import json\nfrom beside import twice\n")
        (home / "beside.py").write_text(helper)
        with monkeypatch.context() as context:
            context.syspath_prepend(str(home))
            for cached in (trial_module._folder, trial_module._digest_and_imports):
                cached.cache_clear()
            return code_fingerprint(name)

    helpers = "def twice(x): return 2 * x\n", "def twice(x): return x + x\n"
    assert len({fingerprint_beside("project", helper) for helper in helpers}) == 2
    assert len({fingerprint_beside("site-packages", helper) for helper in helpers}) == 1


def test_the_file_of_a_layer_from_outside_counts(outside):
    file = outside / "mine.py"
    code = EXAMPLE.read_text()
    file.write_text(code + "class Plain(EMA): pass\n")
    import_file(file, "layers")

    def key(spec: str) -> str:
        trial_module._digest_and_imports.cache_clear()
        return trial(spec, COPYING).key

    specs = ("ema swiglu", "mine.Plain swiglu", "mlp swiglu")
    before = [key(spec) for spec in specs]
    assert len(set(before)) == 3
    file.write_text(file.read_text().replace("0.0, 5.0", "0.0, 4.5"))
    changed = [a != b for a, b in zip(before, [key(spec) for spec in specs], strict=True)]
    assert changed == [True, True, False]


def test_torch_counts_by_its_version():
    assert code_fingerprint("archlab.tasks.contract", "torch.nn.modules.rnn") == code_fingerprint("archlab.tasks.contract")


def test_code_without_a_file_is_refused():
    sys.modules["typed_at_a_prompt"] = types.ModuleType("typed_at_a_prompt")
    try:
        with pytest.raises(ArchlabError, match="module typed_at_a_prompt has no file"):
            code_fingerprint("typed_at_a_prompt")
    finally:
        del sys.modules["typed_at_a_prompt"]


def unedited():
    return trial("1*mamba swiglu", COPYING)


@pytest.fixture(name="key_after_editing")
def fixture_key_after_editing(tmp_path, monkeypatch):
    """The key of a trial had a module's code another line."""
    find = trial_module._file

    def key(module: str) -> str:
        path = find(module)
        edited = tmp_path / path.name
        edited.write_text(path.read_text() + "\nanother_line = 1\n")
        monkeypatch.setattr(trial_module, "_file", lambda name: edited if name == module else find(name))
        trial_module._digest_and_imports.cache_clear()
        return unedited().key

    yield key
    trial_module._digest_and_imports.cache_clear()


@pytest.mark.parametrize(
    "module",
    [
        "archlab.layers.mamba",
        "archlab.layers.mlp",
        "archlab.layers.contract",
        "archlab.layers.ops.selective_scan",
        "archlab.layers.ops.short_conv",
        "archlab.architectures.backbones",
        "archlab.tasks.selective_copying",
        "archlab.tasks.contract",
        "archlab.tasks.splits",
        "archlab.tasks._chunks",
        "archlab.mad.train",
        "archlab.mad.evaluate",
        "archlab.mad.recipe",
    ],
)
def test_code_that_a_number_depends_on_counts(key_after_editing, module):
    before = unedited().key
    assert key_after_editing(module) != before


@pytest.mark.parametrize(
    "module",
    [
        "archlab.layers.hyena",
        "archlab.layers.ops.long_conv",
        "archlab.tasks.compression",
        "archlab.architectures.spec",
        "archlab.architectures.catalogue",
        "archlab.mad.trial",
        "archlab.errors",
        "archlab.sources",
        "archlab.layers.external.dotted",
        "archlab.mad.store",
        "archlab.cli",
        "archlab.reports.tables",
        "archlab.mad.protocol",
        "archlab.jobs.local",
    ],
)
def test_other_code_does_not_count(key_after_editing, module):
    before = unedited().key
    assert key_after_editing(module) == before
