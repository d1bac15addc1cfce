"""Files that register layers or tasks: how they are imported, and what is refused."""

import sys
from pathlib import Path

import pytest
import torch

from archlab.architectures import architecture
from archlab.errors import ArchlabError
from archlab.isolation import changed, snapshot
from archlab.layers import layer, registry
from archlab.sources import import_file
from tests.cli.command_line import start

CODE = """
from dataclasses import dataclass
from archlab.layers import register, registry

@register("{name}")
@dataclass(frozen=True)
class Config(type(registry()["swiglu"]())):
    pass
"""


def test_the_layers_of_a_file_are_known(outside: Path):
    (outside / "my_file.py").write_text(CODE.format(name="mine"))
    import_file(outside / "my_file.py", "layers")
    assert type(layer("mine")).__module__ == "my_file"
    import_file(str(outside / "my_file.py"), "layers")  # again is no harm
    assert sys.path.count(str(outside)) == 1


def test_a_class_of_a_file_that_is_written_without_its_path_is_recognised(outside: Path):
    (outside / "classes.py").write_text("from torch import nn\n\nclass Peeks(nn.Module):\n    pass\n" + CODE.format(name="mine"))
    import_file(outside / "classes.py", "layers")
    for written, right in (("Peeks", "classes.Peeks"), ("Config", "mine")):
        with pytest.raises(ArchlabError, match=f"^unknown layer '{written}': it is a class of classes: write {right}$"):
            architecture(f"{written} swiglu")


def test_a_file_of_a_package_may_import_its_neighbours(outside: Path):
    (outside / "my_package" / "inner").mkdir(parents=True)
    for folder in ("my_package", "my_package/inner"):
        (outside / folder / "__init__.py").touch()
    (outside / "my_package" / "names.py").write_text("NAME = 'mine'\n")
    (outside / "my_package" / "inner" / "file.py").write_text("from ..names import NAME\n" + CODE.replace('"{name}"', "NAME"))
    import_file(outside / "my_package" / "inner" / "file.py", "layers")
    assert type(layer("mine")).__module__ == "my_package.inner.file"


@pytest.mark.parametrize(
    ("file", "code", "reason"),
    [
        ("absent.py", None, "there is no such Python file"),
        ("notes.txt", "", "there is no such Python file"),
        ("broken.py", "import a_package_that_is_not_there", "cannot be imported: ModuleNotFoundError: No module named"),
        ("typo.py", "def f(:", "cannot be imported: SyntaxError: invalid syntax"),
        (
            "script.py",
            "import sys; sys.exit()",
            "cannot be imported: SystemExit; put what ends the program under if __name__ == '__main__'$",
        ),
        ("json.py", "", "json is the name of another module, .*: rename the file"),
        ("taken.py", CODE.format(name="mamba"), "cannot be imported: layer name 'mamba' is taken by archlab.layers.mamba"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(outside: Path, file: str, code: str | None, reason: str):
    if code is not None:
        (outside / file).write_text(code)
    before = dict(registry())
    with pytest.raises(ArchlabError, match=f"^layers file .*{file}: {reason}"):
        import_file(outside / file, "layers")
    assert dict(registry()) == before


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="no copies of processes here")
@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("hangs", "while True:\n    pass\n", r"has not ended within 1 seconds in <module> \(.*hangs.py, line \d\)"),
        ("sleeps", "import time\ntime.sleep(60)\n", r"has not ended within 1 seconds in <module> \(.*sleeps.py, line 2\)"),
        ("leaves", "import os\nos._exit(0)\n", "ends the process, with status 0; put what ends the program under if"),
        ("crashes", "import ctypes\nctypes.string_at(0)\n", "ends the process by SIGSEGV in string_at"),
        ("kills", "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n", "ends the process by SIGTERM$"),
        ("interrupts", "raise KeyboardInterrupt\n", "KeyboardInterrupt$"),
        ("raises", "class Odd(BaseException): pass\nraise Odd('two\\nlines')\n", "Odd: two lines$"),
    ],
)
def test_a_file_that_hangs_or_ends_its_process_when_imported_is_refused(outside: Path, monkeypatch, name, code, reason):
    monkeypatch.setattr("archlab.isolation.MOST_SECONDS", 1.0)
    (outside / f"{name}.py").write_text(code)
    with pytest.raises(ArchlabError, match=f"^layers file .*{name}.py: cannot be imported: {reason}"):
        import_file(outside / f"{name}.py", "layers")
    with pytest.raises(ArchlabError, match=f"^{name}.Mixer: {name} cannot be imported: {reason.partition(';')[0].rstrip('$')}"):
        architecture(f"{name}.Mixer swiglu")


def test_what_a_file_prints_goes_to_standard_error(outside: Path, capsys):
    (outside / "talkative.py").write_text("print('hello')\n")
    import_file(outside / "talkative.py", "layers")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_file_that_changes_what_is_computed_with_is_refused_and_what_it_changes_is_undone(outside: Path):
    (outside / "settings.py").write_text("import os, torch\ntorch.set_grad_enabled(False)\nos.environ['MKL_CBWR'] = 'AVX2'\n")
    before = snapshot()
    with pytest.raises(ArchlabError, match=r"settings.py: importing it changes torch's grad mode: do that inside the layer's"):
        import_file(outside / "settings.py", "layers")
    assert changed(before) == ""


EARLY = """
from archlab.layers import LayerConfig, register

@register("mamba")
class Config(LayerConfig):
    pass
"""


def test_names_of_archlab_are_taken_even_before_a_layer_is_looked_up(tmp_path: Path):
    (tmp_path / "early.py").write_text(EARLY)
    process = start("layers", "--layers", "early.py", folder=tmp_path)
    error = process.communicate(timeout=60)[1]
    assert error.startswith(
        "error: layers file early.py: cannot be imported: layer name 'mamba' is taken by archlab.layers.mamba"
    )
    assert process.returncode == 2
