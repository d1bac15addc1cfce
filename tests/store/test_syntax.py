import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from archlab.store.syntax import CanonicalText

SOURCE = Path(__file__).parent.parent.parent / "src"


def text(code: str, *, bare: bool = True, idle_members: tuple[str, ...] = ()) -> str:
    return CanonicalText(bare, idle_members).of(ast.parse(code))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x  =  (1)  # one"),
        ("def f():\n    'Docs.'\n    return 1", "def f():\n    return 1"),
        ("x: int = 1", "x = 1"),
        ("def f(x: int) -> int: return x", "def f(x): return x"),
        ("raise ValueError(f'{x} is bad')", "raise ValueError('bad') from None"),
        ("assert x, 'no x'", "assert x"),
        ("class A:\n    'Docs.'", "class A:\n    pass"),
        ("@override\ndef f(): return 1", "def f(): return 1"),
        ("f'a' 'b' f'{x}'", "f'ab{x}'"),
    ],
)
def test_code_that_computes_the_same_has_one_text(one, other):
    assert text(one) == text(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("x = f'a{y}'", "x = f'b{y}'"),
        ("x = f'{y!r}'", "x = f'{y}'"),
        ("x = [None]", "x = []"),
        ("f(*a, **b)", "f(*a, b=b)"),
        ("x = {**a, 'b': 1}", "x = {'b': 1, **a}"),
        ("raise ValueError('a')", "raise TypeError('a')"),
        ("if x < 1: raise ValueError", "if x <= 1: raise ValueError"),
        ("class A:\n    x: int = 1", "class A:\n    x = 1"),
        ("def f(x, /): pass", "def f(x): pass"),
        ("a.b.c()", "a.b()"),
        ("x = -1", "x = 1"),
    ],
)
def test_code_that_computes_something_else_has_another_text(one, other):
    assert text(one) != text(other)


def test_code_from_outside_keeps_annotations_and_messages():
    for one, other in (("x: int = 1", "x: float = 1"), ("raise E('a')", "raise E('b')"), ("assert x, 'a'", "assert x, 'b'")):
        assert text(one) == text(other)
        assert text(one, bare=False) != text(other, bare=False)


def test_members_are_left_out_of_registered_classes_only():
    code = "@register('a')\nclass A:\n    summary = 'one'\n    def flops(self): return 1\n    def build(self): return 1"
    edited = code.replace("one", "two").replace("flops(self): return 1", "flops(self): return 2")
    idle = ("flops", "summary")
    assert text(code, idle_members=idle) == text(edited, idle_members=idle)
    assert text(code, idle_members=idle) != text(
        code.replace("build(self): return 1", "build(self): return 2"), idle_members=idle
    )
    plain = [each.replace("@register('a')\n", "") for each in (code, edited)]
    assert text(plain[0], idle_members=idle) != text(plain[1], idle_members=idle)


def test_names_are_collected_with_their_attributes():
    canonical = CanonicalText(bare=True)
    canonical.of(ast.parse("def f(x: Tensor): return F.pad(x, twice(size.a.b)[0].c)\nraise Bad(why)"))
    assert canonical.names == {"F.pad", "x", "twice", "size.a.b"}


def pythons() -> list[str]:
    """Other interpreters on this machine that archlab would run on."""
    found = [*(Path.home() / ".pyenv" / "versions").glob("3.*/bin/python3")]
    found += [Path(path) for minor in range(11, 20) if (path := shutil.which(f"python3.{minor}"))]
    check = f"import sys; print({sys.version_info[:2]} != sys.version_info[:2] >= (3, 11))"
    return [str(path) for path in found if subprocess.run([path, "-c", check], capture_output=True).stdout == b"True\n"]


PROGRAM = """
import pathlib
from archlab.store.fingerprint import Numerics, _outside, code_fingerprint
source = pathlib.Path("archlab")
modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in sorted(source.rglob("*.py"))]
print(code_fingerprint(*modules, numerics=Numerics(modules=("archlab",))), *(_outside(module)[0] for module in modules))
"""


@pytest.mark.slow
def test_the_hash_of_all_code_is_the_same_under_every_version_of_python():
    others = pythons()
    if not others:
        pytest.skip("there is no other version of Python on this machine")

    def printed(python: str) -> str:
        run = subprocess.run([python, "-W", "error", "-c", PROGRAM], cwd=SOURCE, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout

    assert {printed(python) for python in others} == {printed(sys.executable)}
