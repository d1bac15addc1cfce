import importlib
import re
import sys
import threading
import types
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path

import pytest
from tests.mad.trials import COPYING, train, trial
from tests.scaling.language_models import tiny_corpus, tiny_trial

from archlab import architecture
from archlab.errors import ArchlabError
from archlab.mad.learner import split_tensors
from archlab.mad.trial import NUMERICS, Trial, _key_of_alike
from archlab.scaling.training_loop import train as train_model
from archlab.scaling.trial import NUMERICS as MODEL_NUMERICS
from archlab.scaling.trial import LMTrial
from archlab.sources import import_file
from archlab.store import fingerprint as fingerprint_module
from archlab.store.fingerprint import Numerics, chosen_kernels, code_fingerprint, definitions
from archlab.store.source import EFFECTS, Source, existing_file
from archlab.tasks import setting

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "custom_layer.py"
_NUMBERS = count()  # no name twice: modules are imported and read once


def forget() -> None:
    """Read all code anew."""
    for name in ("definitions", "_outside", "folder_of", "source_of"):
        getattr(fingerprint_module, name).cache_clear()
    _key_of_alike.cache_clear()


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
            forget()
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
        forget()
        return trial(spec, COPYING).key

    specs = ("ema swiglu", "mine.Plain swiglu", "mlp swiglu")
    before = [key(spec) for spec in specs]
    assert len(set(before)) == 3
    file.write_text(file.read_text().replace("0.0, 5.0", "0.0, 4.5"))
    changed = [a != b for a, b in zip(before, [key(spec) for spec in specs], strict=True)]
    assert changed == [True, True, False]


@pytest.mark.parametrize(
    ("code", "reached"),
    [
        ("import archlab\ninner = archlab.layer('mamba')", "archlab.layers.mamba:Mamba"),
        ("from archlab.layers import layer as find\ninner = find('mamba')", "archlab.layers.mamba:Mamba"),
        ("import archlab.layers as a\ninner = a.registry()['mamba']", "archlab.layers.mamba:Mamba"),
        ("from archlab import architecture\ninner = architecture('mamba')", "archlab.layers.mamba:Mamba"),
        ("from archlab import layers\nnorm = layers.ops.rms_norm.RMSNorm", "archlab.layers.ops.rms_norm:RMSNorm"),
        ("import archlab\ninner = archlab.task('parity')", "archlab.tasks.parity:Parity"),
        ("from archlab.tasks import setting\ninner = setting('parity')", "archlab.tasks.parity:Parity"),
        ("from archlab.layers import LayerConfig, register\nfrom archlab.tasks import Task", ""),
    ],
)
def test_what_code_from_outside_finds_by_name_counts(tmp_path, monkeypatch, code, reached):
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"finds_by_name_{next(_NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(code)
    found = definitions(name, numerics=NUMERICS)
    others = ("archlab.layers.mamba:Mamba", "archlab.tasks.parity:Parity")
    assert reached in found if reached else not found.keys() & {*others}


def test_torch_counts_by_its_version():
    assert code_fingerprint("archlab.tasks.contract", "torch.nn.modules.rnn") == code_fingerprint("archlab.tasks.contract")


def test_code_without_a_file_is_refused():
    sys.modules["typed_at_a_prompt"] = types.ModuleType("typed_at_a_prompt")
    try:
        with pytest.raises(ArchlabError, match="module typed_at_a_prompt has no file"):
            code_fingerprint("typed_at_a_prompt")
    finally:
        del sys.modules["typed_at_a_prompt"]


def mamba() -> Trial:
    return trial("1*mamba swiglu", COPYING)


@pytest.fixture(name="edited", scope="module")
def fixture_edited(tmp_path_factory: pytest.TempPathFactory):
    """Keys of two trials and of a training run for a language model, as they are had one file the given text replaced."""
    model = tiny_trial(tiny_corpus(tmp_path_factory.mktemp("corpus")), spec="mh-attention(heads=2) swiglu")
    read = fingerprint_module.source_of

    @cache
    def keys(file: str = "", old: str = "", new: str = "") -> list[str]:
        def source(module: str) -> Source:
            if not file or module != file.removesuffix(".py").replace("/", "."):
                return read(module)
            path = existing_file(module)
            text = path.read_text()
            assert text.count(old) >= 1, f"{file} no longer holds {old!r}"
            is_package = path.stem == "__init__"
            return Source(module, text.replace(old, new, 1), is_package=is_package)

        with pytest.MonkeyPatch.context() as context:
            context.setattr(fingerprint_module, "source_of", source)
            definitions.cache_clear()
            _key_of_alike.cache_clear()
            trials = mamba(), trial("hyena swiglu", setting("compression")), LMTrial(model.run, model.recipe)
            found = [each.key for each in trials]
        definitions.cache_clear()
        _key_of_alike.cache_clear()
        return found

    return keys


HARMLESS = [
    ("archlab/layers/contract.py", "must be at least 1", "must be 1 or more"),
    ("archlab/fields.py", "must be", "has to be"),
    ("archlab/tasks/contract.py", "_LARGEST = 1 << 20", "_LARGEST = 1 << 21"),
    ("archlab/tasks/contract.py", "Count\n", "Annotated[int, between(1, 1 << 30)]\n"),
    ("archlab/tasks/selective_copying.py", "does not fit in length={", "is too many for length={"),
    ("archlab/layers/mlp.py", "no inner channel is left", "there is no inner channel"),
    ("archlab/layers/ops/members.py", "transforms other than vmap", "only vmap is known"),
    ("archlab/layers/ops/kernels.py", "they need a GPU: choose", "choose"),
    ("archlab/corpora/order.py", "places {places.min()} to", "from {places.min()} to"),
    ("archlab/layers/mamba.py", '"""', '"""Another docstring. '),
    ("archlab/layers/ops/scan.py", "\n", "\n# a comment\n"),
    ("archlab/training/steps.py", "REPORT_SECONDS = 1.0", "REPORT_SECONDS = 2.0"),
    ("archlab/mad/train.py", "_LOSSES_READ_EVERY = 50", "_LOSSES_READ_EVERY = 20"),
    ("archlab/scaling/training_loop.py", "CHECKPOINT_SECONDS = 60.0", "CHECKPOINT_SECONDS = 600.0"),
    ("archlab/layers/ops/kernels.py", "def _library", "def unused() -> int:\n    return 1\n\n\ndef _library"),
    ("archlab/layers/mamba.py", "class Mamba(", "UNUSED = 3\n\n\nclass Mamba("),
    ("archlab/architectures/backbones.py", "import math\n", "import os\nimport math\n"),
    (
        "archlab/layers/ops/rms_norm.py",
        "import torch\nfrom torch import Tensor, nn",
        "from torch import Tensor, nn\nimport torch",
    ),
    ("archlab/architectures/backbones.py", "-> Tensor:", '-> "Tensor":'),
    ("archlab/architectures/backbones.py", "x_bld: Tensor = self", "x_bld = self"),
    ("archlab/tasks/selective_copying.py", "copy the data tokens", "copy all data tokens"),
    ("archlab/layers/mamba.py", "scan_and_readout = 2 *", "scan_and_readout = 3 *"),
    ("archlab/layers/mamba.py", 'paper: ClassVar[str] = "', 'paper: ClassVar[str] = "Gu and Dao, '),
    ("archlab/layers/registry.py", "def register(", "OTHER = 1\n\n\ndef register("),
    ("archlab/architectures/spec.py", "def flops(", "def floating_point_operations("),
    ("archlab/mad/recipe.py", " = 0.999\n", " = 0.99\n"),
    ("archlab/mad/trial.py", "learning_rate: Positive", "learning_rate: NonNegative"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new"), HARMLESS)
def test_an_edit_that_changes_no_number_changes_no_key(edited, file, old, new):
    assert edited(file, old, new) == edited()


MAMBA, COMPRESSION, ATTENTION_MODEL = range(3)
HARMFUL = [
    ("archlab/layers/ops/rms_norm.py", "eps: float = 1e-5", "eps: float = 1e-6", {0, 1, 2}),
    ("archlab/architectures/backbones.py", "return x_bld + y_bld", "return x_bld - y_bld", {0, 1, 2}),
    ("archlab/architectures/backbones.py", "10_000", "1_000", {0, 1, 2}),
    ("archlab/architectures/spec.py", "embedding_std: float = 0.02", "embedding_std: float = 0.03", {0, 1, 2}),
    ("archlab/architectures/spec.py", 'config.kind == "sequence"', 'config.kind != "sequence"', {0, 1, 2}),
    ("archlab/layers/ops/rms_norm.py", ".square()).div_", ".square()).mul_", {0, 1, 2}),
    ("archlab/layers/mamba.py", "c_lbn, self.D)", "c_lbn, -self.D)", {MAMBA}),
    ("archlab/layers/mamba.py", "d_state: Count = 4", "d_state: Count = 8", {MAMBA}),
    ("archlab/layers/mamba.py", "(self.dt_bias, self.A_log, self.D):", "(self.dt_bias, self.A_log):", {MAMBA}),
    ("archlab/layers/mamba.py", "import ShortConv", "import _ShiftedMultiplyAdd as ShortConv", {MAMBA}),
    ("archlab/layers/ops/step_size.py", "DT_MIN, DT_MAX = 1e-3, 1e-1", "DT_MIN, DT_MAX = 1e-4, 1e-1", {MAMBA}),
    ("archlab/layers/ops/selective_scan.py", "TILE_LENGTH = 8", "TILE_LENGTH = 16", {MAMBA}),
    ("archlab/layers/ops/selective_scan.py", "carried = torch.zeros_like", "carried = torch.ones_like", {MAMBA}),
    ("archlab/layers/ops/rotary.py", "import torch", "import torch\n\ntorch.set_default_dtype(torch.float64)", {ATTENTION_MODEL}),
    ("archlab/layers/ops/rotary_attention.py", "_QUERIES = 32", "_QUERIES = 64", {ATTENTION_MODEL}),
    ("archlab/layers/ops/rotary_attention.py", '@torch.library.impl(_FORWARD, "cpu")', "", {ATTENTION_MODEL}),
    ("archlab/layers/ops/precision.py", "torch.bfloat16, torch.float16", "torch.bfloat16", {MAMBA, COMPRESSION}),
    ("archlab/layers/ops/kernels.py", "_MULTIPLE = 16", "_MULTIPLE = 32", {0, 1, 2}),
    ("archlab/layers/mlp.py", "F.silu", "F.gelu", {0, 1, 2}),
    ("archlab/tasks/selective_copying.py", "num_blanks = self.length - 2", "num_blanks = self.length - 3", {MAMBA}),
    ("archlab/tasks/compression.py", "rng.integers(self.vocab_size - 1", "rng.integers(self.vocab_size", {COMPRESSION}),
    ("archlab/tasks/_chunks.py", "1 << 15", "1 << 14", {MAMBA}),
    ("archlab/tasks/splits.py", "digest()[:16]", "digest()[:8]", {MAMBA, COMPRESSION}),
    ("archlab/tasks/contract.py", "IGNORE = -100", "IGNORE = -1", {MAMBA, COMPRESSION}),
    ("archlab/mad/learner.py", "value=IGNORE", "value=0", {MAMBA, COMPRESSION}),
    ("archlab/mad/evaluate.py", "BATCH = 128", "BATCH = 64", {MAMBA, COMPRESSION}),
    ("archlab/mad/learner.py", "torch.bfloat16", "torch.float16", {MAMBA, COMPRESSION}),
    ("archlab/mad/programs.py", "loss.backward()", "(2 * loss).backward()", {MAMBA, COMPRESSION}),
    ("archlab/training/steps.py", "0.5 * (1 + math.cos", "0.4 * (1 + math.cos", {0, 1, 2}),
    ("archlab/training/steps.py", "round(num_steps * i / number)", "num_steps * i // number", {0, 1, 2}),
    ("archlab/mad/recipe.py", "warmup=self.warmup", "warmup=0.0", {MAMBA, COMPRESSION}),
    ("archlab/mad/recipe.py", "| {num_steps}", "", {MAMBA, COMPRESSION}),
    ("archlab/mad/train.py", "([seed, 2])", "([seed, 3])", {MAMBA, COMPRESSION}),
    ("archlab/mad/recipe.py", "-(-num_train_examples //", "(num_train_examples //", {MAMBA, COMPRESSION}),
    ("archlab/mad/trial.py", "self.recipe.num_steps(", "1 + self.recipe.num_steps(", {MAMBA, COMPRESSION}),
    ("archlab/training/optimiser.py", "parameter.ndim > 1", "parameter.ndim > 0", {0, 1, 2}),
    ("archlab/training/optimiser.py", '"weight_decay": 0.0', '"weight_decay": 0.1', {0, 1, 2}),
    ("archlab/training/context.py", "set_flush_denormal(True)", "set_flush_denormal(False)", {0, 1, 2}),
    ("archlab/training/context.py", "SeedSequence([seed, 1])", "SeedSequence([seed, 4])", {0, 1, 2}),
    ("archlab/scaling/recipe.py", "decay=self.decay", "decay=0.1", {ATTENTION_MODEL}),
    ("archlab/scaling/objective.py", "unembed(mixed_bld).float()", "unembed(mixed_bld)", {ATTENTION_MODEL}),
    ("archlab/scaling/training_loop.py", "HOPELESS_AFTER = 0.25", "HOPELESS_AFTER = 0.5", {ATTENTION_MODEL}),
    ("archlab/scaling/training_loop.py", "loss.detach() * weight", "loss.detach()", {ATTENTION_MODEL}),
    ("archlab/scaling/loader.py", "step - 1, run.batch_size", "step, run.batch_size", {ATTENTION_MODEL}),
    ("archlab/scaling/processes.py", "len(piece) / len(rows)", "1 / len(rows)", {ATTENTION_MODEL}),
    ("archlab/corpora/order.py", "_ROUNDS = 6", "_ROUNDS = 7", {ATTENTION_MODEL}),
    ("archlab/corpora/corpus.py", "which[:limit] * number // limit", "which[:limit]", {ATTENTION_MODEL}),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "changed"), HARMFUL)
def test_an_edit_that_changes_numbers_changes_the_keys_of_those_that_it_reaches(edited, file, old, new, changed):
    before, after = edited(), edited(file, old, new)
    assert {index for index in range(3) if before[index] != after[index]} == changed


def executed(run: Callable[[], object]) -> set[tuple[str, str]]:
    """Module and qualified name of every function of archlab that is called."""
    seen = set()

    def profile(frame: types.FrameType, event: str, argument: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("archlab.") and frame.f_code.co_filename != "<string>":
            seen.add((module, re.sub(r"\.?<.*", "", frame.f_code.co_qualname)))

    before = sys.getprofile()
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    return seen


CHANGES_NO_NUMBER = {
    ("archlab.layers.hyena", "_divides_projections"),  # refuses
    ("archlab.scaling.training_plan", "LMRun.architecture"),  # reads the spec, whose layers are in the key
    ("archlab.architectures.spec", "Architecture.__hash__"),  # finds what was looked up before
    ("archlab.architectures.spec", "Architecture._hash"),
    ("archlab.architectures.spec", "Architecture.validate"),  # refuses
    ("archlab.architectures.spec", "_check"),  # refuses
    ("archlab.mad.train", "train"),  # hands one trial to train_together
    ("archlab.mad.trial", "alike"),  # says which trials may be trained together
    *(("archlab.mad.trial", name) for name in ("Kind.__hash__", "Kind._hash", "Kind._values", "Trial.kind")),
}
"""Functions outside the numerics that a training may call, beside those of :data:`CHECKS`."""
CHECKS = {
    "archlab.fields",
    "archlab.layers.contract",
    "archlab.layers.external.check",
    "archlab.layers.knobs",
    "archlab.layers.registry",
    "archlab.tasks.registry",
}


def uncounted(called: set[tuple[str, str]], counted: dict[str, str]) -> list[tuple[str, str]]:
    """Those functions that no counted definition holds."""
    found = []
    for module, name in called:
        first, _, rest = name.partition(".")
        effects = fingerprint_module.source_of(module).effects
        places = {f"{module}:{first}", f"{module}:{first}.{rest.partition('.')[0]}"}
        acts = f"{module}:{EFFECTS}" in counted and any(getattr(node, "name", "") == first for node in effects)
        if not places & counted.keys() and not acts and module not in CHECKS and (module, name) not in CHANGES_NO_NUMBER:
            found.append((module, name))
    return sorted(found)


SMALL = {"length": 16, "num_train_examples": 32}


@pytest.mark.parametrize(
    ("spec", "task"),
    [
        ("1*mamba swiglu", setting("selective-copying", num_tokens_to_copy=2, **SMALL)),
        ("hyena moe", setting("in-context-recall", vocab_size=8, **SMALL)),
        ("parallel(gated-deltanet(heads=2), rwkv-7(heads=2))", setting("noisy-in-context-recall", vocab_size=24, **SMALL)),
        ("mh-attention(heads=2) mlp", setting("fuzzy-in-context-recall", vocab_size=24, **SMALL)),
        ("mh-gated-linear-attention(heads=2) h3", setting("memorization", vocab_size=17, length=8, num_train_examples=32)),
        ("retnet(heads=2) swiglu", setting("compression", vocab_size=16, **SMALL)),
    ],
)
def test_every_function_that_a_trial_calls_counts(spec, task):
    recipe = {"steps": 2, "batch_size": 8, "evaluations": 1, "num_evaluation": 8, "checkpoint": "best"}
    one = trial(spec, task, **recipe)
    modules = {module for layer in one.architecture.layers for module in layer.modules()}
    counted = definitions(*sorted({*modules, type(task).__module__}), numerics=NUMERICS)
    split_tensors.cache_clear()
    assert uncounted(executed(lambda: train(one)), counted) == []


def test_every_function_that_the_training_of_a_language_model_calls_counts(tmp_path):
    corpus = tiny_corpus(tmp_path)
    one = tiny_trial(corpus, spec="hyena mh-attention(heads=2) swiglu", steps=4)
    modules = {module for layer in architecture(one.run.spec).layers for module in layer.modules()}
    counted = definitions(*sorted(modules), numerics=MODEL_NUMERICS)
    accounting = {"archlab.architectures", "archlab.layers", "archlab.machine"}  # for the utilisation that a result states
    called = {(module, name) for module, name in executed(lambda: train_model(one, corpus)) if "flops" not in name}
    left = [each for each in uncounted(called, counted) if ".".join(each[0].split(".")[:2]) not in accounting]
    assert [each for each in left if ":".join(each) not in MODEL_NUMERICS.idle] == []


@pytest.mark.parametrize("numerics", [NUMERICS, MODEL_NUMERICS])
def test_what_the_numerics_name_is_there(numerics: Numerics):
    for place in (*numerics.roots, *numerics.idle):
        module, _, name = place.partition(":")
        source = fingerprint_module.source_of(module)
        if name:
            source.definition(name)
    for module in numerics.modules:
        existing_file(module)


def test_kernels_that_the_environment_chooses_count(monkeypatch):
    for name in fingerprint_module._DEFAULT_KERNELS:
        monkeypatch.delenv(name, raising=False)
    plain = mamba().key
    assert chosen_kernels() == {}
    for name, value in (("ONEDNN_MAX_CPU_ISA", "default"), ("ATEN_CPU_CAPABILITY", "")):
        monkeypatch.setenv(name, value)
        assert mamba().key == plain
    for name, value in (("ATEN_CPU_CAPABILITY", "avx2"), ("MKL_CBWR", "COMPATIBLE"), ("ONEDNN_MAX_CPU_ISA", "AVX2")):
        with monkeypatch.context() as context:
            context.setenv(name, value)
            assert chosen_kernels() == {name: value}
            assert mamba().key != plain


SOURCE = '''"""A small module."""
import math
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

EPS: float = 1e-5
_cache = dict(a=1)
print(f"{EPS!r:>{8}} is" " small")

def used(x, *, scale=0.5, **more):
    """Documented."""
    assert x is not None, "x"
    if scale < 0:
        raise ValueError(f"scale={scale}")
    first, *rest = [F.silu(y) for y in x if (z := y) and z > EPS]
    return {**more, "rest": rest[::-1], None: lambda: -first}

def unused():
    return math.pi

class Layer(nn.Module):
    size: int = 3

    def forward(self, x: "Tensor") -> "Tensor":
        with self.context() as c:
            return used(x, scale=1j * c.imag or 2**-3)
'''


def test_the_algorithm_is_as_it_was(monkeypatch):
    """A change of the algorithm changes every key: it needs a reason, and a note in the changelog."""
    source = Source("archlab.small", SOURCE, is_package=False)
    read = fingerprint_module.source_of
    monkeypatch.setattr(fingerprint_module, "source_of", lambda name: source if name == "archlab.small" else read(name))
    monkeypatch.setattr(fingerprint_module, "split_path", lambda path: ("archlab.small", path.removeprefix("archlab.small.")))
    definitions.cache_clear()
    numerics = Numerics(roots=("archlab.small",), modules=("archlab.small",))
    assert sorted(definitions(numerics=numerics)) == [f"archlab.small:{name}" for name in ("(import)", "EPS", "Layer", "used")]
    assert code_fingerprint(numerics=numerics) == "fee1f41d911b885b"
    definitions.cache_clear()
