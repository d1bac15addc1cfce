import json
import re
from dataclasses import asdict, replace

import pytest

from archlab.architectures import CATALOGUE, architecture
from archlab.errors import ArchlabError
from archlab.layers import layer
from archlab.mad.plan import make_plan
from archlab.mad.protocol import Grid, Protocol, TaskPlan, load_protocol, parse_protocol, protocol_names
from archlab.mad.recipe import Recipe
from archlab.tasks import registry, setting
from archlab.tasks.stored import stored_setting

PAPER_SETTINGS = {
    "in-context-recall": 11,
    "noisy-in-context-recall": 14,
    "fuzzy-in-context-recall": 11,
    "selective-copying": 13,
    "compression": 11,
    "memorization": 6,
}
SMALL = """
summary: a small one
dim: 32
layer_defaults: {mh-attention: {heads: 2}}
seeds: [0, 1]
grid: {learning_rate: [1.0e-3, 2e-3], weight_decay: [0, 0.1]}
recipe: {steps: 8, batch_size: 8}
tasks:
  compression: {base: {length: 8}, vary: {length: [16, 32], vocab_size: [32]}}
  memorization: {recipe: {steps: 4, warmup: 1e-1}, grid: {learning_rate: [5.0e-3]}}
"""


@pytest.fixture(name="small")
def fixture_small() -> Protocol:
    return parse_protocol("small", SMALL)


@pytest.mark.parametrize("name", ["paper", "mad-lab"])
def test_the_papers_benchmark_has_66_settings_and_6_grid_points(name):
    protocol = load_protocol(name)
    assert {task: len(plan.settings) for task, plan in protocol.tasks.items()} == PAPER_SETTINGS
    assert sum(len(set(plan.settings)) for plan in protocol.tasks.values()) == 66
    trials = protocol.trials([architecture("transformer++")])
    assert len({trial.key for trial in trials}) == len(trials) == protocol.num_trials == 66 * 6
    for plan in protocol.tasks.values():
        assert set(plan.grid.points()) == {(lr, wd) for lr in (1e-4, 5e-4, 1e-3) for wd in (0.0, 0.1)}
        assert (plan.recipe.epochs, plan.recipe.batch_size, plan.recipe.num_evaluation) == (200, 128, 1280)
        assert plan.recipe.num_steps(12_800) == 20_000
    assert protocol.dim == 128


@pytest.mark.parametrize("name", ["paper", "mad-lab"])
def test_the_papers_settings_change_one_knob_of_the_base_at_a_time(name):
    protocol = load_protocol(name)
    expected = {
        "in-context-recall": {"vocab_size": 16, "length": 128, "num_train_examples": 12_800, "multi_query": True},
        "noisy-in-context-recall": {"vocab_size": 32, "noise_vocab_size": 16, "length": 128, "frac_noise": 0.2},
        "fuzzy-in-context-recall": {"vocab_size": 16, "length": 128, "key_motif_size": 3, "value_motif_size": 3},
        "selective-copying": {"vocab_size": 16, "length": 256, "num_tokens_to_copy": 16, "num_train_examples": 12_800},
        "compression": {"vocab_size": 16, "length": 32, "num_train_examples": 12_800},
        "memorization": {"vocab_size": 256, "length": 32, "num_train_examples": 256},
    }
    for task, plan in protocol.tasks.items():
        base = plan.settings[0].knobs()
        assert base | expected[task] == base
        for varied in plan.settings[1:]:
            assert sum(varied.knobs()[knob] != base[knob] for knob in base) == 1


def test_where_the_paper_and_the_reference_code_differ():
    paper, reference = (next(iter(load_protocol(name).tasks.values())).recipe for name in ("paper", "mad-lab"))
    assert (paper.schedule, reference.schedule) == ("cosine", "constant")
    assert ((paper.beta1, paper.beta2), (reference.beta1, reference.beta2)) == ((0.9, 0.98), (0.9, 0.999))
    assert (paper.metric, reference.metric) == ("accuracy", "macro-accuracy")
    assert (paper.select_on, reference.select_on) == ("validation", "test")
    assert (paper.checkpoint, reference.checkpoint) == ("last", "best")
    assert (paper.precision, reference.precision) == ("bf16", "bf16")
    assert (paper.norm, reference.norm) == ("rmsnorm", "rmsnorm")
    assert (paper.reference_init, reference.reference_init) == (False, True)
    assert reference.stop_accuracy == 0.999
    heads = {
        name: make_plan(load_protocol(name), ["mh-hyena"]).architectures[0].layers[0].knobs()["heads"]
        for name in ("paper", "mad-lab")
    }
    assert heads == {"paper": 16, "mad-lab": 8}


@pytest.mark.parametrize("name", protocol_names())
def test_shipped_protocols_fit_every_architecture_of_the_catalogue(name):
    protocol = load_protocol(name)
    assert protocol.name == name
    assert "\n" not in protocol.summary
    plan = make_plan(protocol, list(CATALOGUE))
    trials = plan.trials()
    # Some architectures have two names.
    distinct = {architecture(name, layer_defaults=protocol.layer_defaults) for name in CATALOGUE}
    assert len(trials) == protocol.num_trials * len(distinct)
    assert Protocol.from_dict(json.loads(json.dumps(asdict(protocol)))) == protocol


@pytest.mark.parametrize("name", protocol_names())
def test_defaults_of_layers_in_the_package_are_right(name):
    """They are not checked when a protocol is loaded."""
    for layer_name, knobs in load_protocol(name).layer_defaults.items():
        layer(layer_name, **knobs)


@pytest.mark.parametrize("name", ["smoke", "quick"])
def test_the_small_protocols_have_every_task_of_the_package(name):
    own = {name for name, task in registry().items() if task.__module__.startswith("archlab.")}
    assert set(load_protocol(name, "all").tasks) == own
    assert set(load_protocol(name).tasks) == set(PAPER_SETTINGS)


@pytest.mark.parametrize("name", ["paper", "mad-lab"])
def test_the_papers_protocols_have_its_six_tasks_for_ever(name):
    assert set(load_protocol(name).tasks) == set(PAPER_SETTINGS)


def test_reading(small):
    assert (small.dim, small.seeds, small.layer_defaults) == (32, (0, 1), {"mh-attention": {"heads": 2}})
    compression, memorization = small.tasks["compression"], small.tasks["memorization"]
    assert compression.settings == (
        setting("compression", length=8),
        setting("compression", length=16),
        setting("compression", length=32),
        setting("compression", length=8, vocab_size=32),
    )
    assert compression.grid == Grid((1e-3, 2e-3), (0.0, 0.1))
    assert (compression.recipe.steps, compression.recipe.batch_size) == (8, 8)
    assert (memorization.recipe.steps, memorization.recipe.warmup, memorization.recipe.batch_size) == (4, 0.1, 8)
    assert memorization.grid == Grid((5e-3,), (0.0, 0.1))
    assert small.num_trials == 2 * (4 * 4 + 1 * 2)


def test_trials_are_ordered_so_that_architectures_can_be_compared_early(small):
    order = [
        (t.seed, t.setting.name, t.setting.length, str(t.architecture), t.learning_rate, t.weight_decay)
        for t in small.trials([architecture("mlp"), architecture("swiglu")])
    ]
    assert order[:5] == [
        (0, "compression", 8, "mlp", 2e-3, 0.0),
        (0, "compression", 8, "mlp", 2e-3, 0.1),
        (0, "compression", 8, "mlp", 1e-3, 0.0),
        (0, "compression", 8, "mlp", 1e-3, 0.1),
        (0, "compression", 8, "swiglu", 2e-3, 0.0),
    ]
    assert [seed for seed, *_ in order] == [0] * 36 + [1] * 36
    assert [task for _, task, *_ in order[:36]] == ["compression"] * 32 + ["memorization"] * 4


def test_narrowing_tasks(small):
    assert list(small.with_tasks(["memorization"]).tasks) == ["memorization"]
    assert list(small.with_tasks(["memorization", "compression"]).tasks) == ["compression", "memorization"]


def test_tasks_go_by_their_short_names_too():
    line = "  selective-copying: {base: {length: 24, num_tokens_to_copy: 4}}\n"
    protocol = parse_protocol("small", SMALL + line)
    assert parse_protocol("small", SMALL + line.replace("selective-copying", "copy")) == protocol
    assert list(protocol.with_tasks(["copy", "compression"]).tasks) == ["compression", "selective-copying"]
    assert protocol.with_value("copy.length", 32) == protocol.with_value("selective-copying.length", 32) != protocol
    with pytest.raises(ArchlabError, match=r"^protocol small: tasks: selective-copying is there twice$"):
        parse_protocol("small", SMALL + line + "  copy: {}\n")


def test_narrowing_to_base_settings(small):
    narrowed = small.with_settings("base")
    assert [plan.settings for plan in narrowed.tasks.values()] == [
        (setting("compression", length=8),),
        (setting("memorization"),),
    ]


def test_narrowing_the_grid(small):
    narrowed = small.with_grid(learning_rate=[1e-2, 1e-2])
    assert {plan.grid for plan in narrowed.tasks.values()} == {Grid((1e-2,), (0.0, 0.1))}
    narrowed = narrowed.with_grid(weight_decay=[0])
    assert narrowed.num_trials == 2 * 5


def test_narrowing_seeds(small):
    assert small.with_seeds([4, 4, 2]).seeds == (4, 2)


def test_changing_a_value(small):
    assert small.with_value("dim", 64).dim == 64
    assert {plan.recipe.steps for plan in small.with_value("recipe.steps", 99).tasks.values()} == {99}
    everywhere = small.with_value("length", 10)
    assert {x.length for plan in everywhere.tasks.values() for x in plan.settings} == {10}
    assert len(everywhere.tasks["compression"].settings) == 2  # three lengths became one
    only_one = small.with_value("compression.vocab_size", 8)
    assert {x.vocab_size for x in only_one.tasks["compression"].settings} == {8}
    assert only_one.tasks["memorization"] == small.tasks["memorization"]
    of_those_that_have_it = small.with_value("map_seed", 1)
    assert of_those_that_have_it.tasks["compression"] == small.tasks["compression"]
    assert of_those_that_have_it.tasks["memorization"].settings == (setting("memorization", map_seed=1),)


@pytest.mark.parametrize(
    ("narrow", "message"),
    [
        (lambda p: p.with_tasks(["compresion"]), "unknown task of protocol small: 'compresion': did you mean 'compression'?"),
        (lambda p: p.with_tasks([]), "protocol small: tasks are empty: give at least one of "),
        (lambda p: p.with_seeds([]), "protocol small: seeds=(): give a list of whole numbers of at least 0 that is not empty"),
        (lambda p: p.with_seeds([-1]), "protocol small: seeds=-1: give a whole number of at least 0"),
        (lambda p: p.with_grid(learning_rate=[]), "grid: learning_rate=(): give a list of numbers above 0 that is not empty"),
        (lambda p: p.with_grid(learning_rate=[0.0]), "grid: learning_rate=0.0: give a number above 0"),
        (lambda p: p.with_grid(weight_decay=[-1]), "grid: weight_decay=-1: give a number of at least 0"),
        (lambda p: p.with_grid(weight_decay=[float("nan")]), "grid: weight_decay=nan: give a finite number of at least 0"),
        (lambda p: p.with_grid(momentum=[1]), "grid: unknown field 'momentum': known: learning_rate, weight_decay"),
        (lambda p: p.with_value("dim", "64"), "protocol small: dim='64': give a whole number of at least 1"),
        (lambda p: p.with_value("dim", 0), "protocol small: dim=0: give a whole number of at least 1"),
        (lambda p: p.with_value("lenght", 8), "unknown knob 'lenght': did you mean 'length'?"),
        (lambda p: p.with_value("frac_noise", 0.1), "unknown knob 'frac_noise': known: "),
        (lambda p: p.with_value("compression.map_seed", 1), "unknown knob 'map_seed': known: "),
        (lambda p: p.with_value("copying.length", 1), "unknown task of protocol small: 'copying': "),
        (lambda p: p.with_value("recipe.step", 1), "recipe: unknown field 'step': did you mean 'steps'?"),
        (lambda p: p.with_value("steps", 1), "steps belongs to the recipe: write recipe.steps"),
        (lambda p: p.with_value("recipe.length", 1), "length does not belong to the recipe: write length"),
        (lambda p: p.with_value("recipe.lr", 1), "lr belongs to the grid: write --grid lr=A,B"),
        (lambda p: p.with_value("learning_rate", 1), "learning_rate belongs to the grid: write --grid learning_rate=A,B"),
        (lambda p: p.with_value("seeds", 3), "seeds is not set like a knob: write --seeds N"),
        (lambda p: p.with_value("width", 32), "width is not set like a knob: write dim"),
        (lambda p: p.with_value("d_state", 8), "d_state is a knob of layers: write it into the spec, as in "),
        (lambda p: p.with_value("recipe.steps", "many"), "recipe: steps='many': give a whole number of at least 0"),
        (
            lambda p: p.with_value("length", 7.5),
            "length=7.5 in protocol small: compression: length=7.5: give a whole number from 1 to 1048576",
        ),
        (lambda p: p.with_value("length", 9), "length=9 in protocol small: memorization: length=9: each key is followed by"),
    ],
)
def test_narrowing_to_what_cannot_be_is_refused_in_one_line(small, narrow, message):
    with pytest.raises(ArchlabError, match=f"^{re.escape(message)}") as refusal:
        narrow(small)
    assert "\n" not in str(refusal.value)


def test_a_value_that_makes_a_varied_setting_impossible_is_refused_with_the_reason():
    expected = "length=64 in protocol paper: selective-copying: num_tokens_to_copy=32 does not fit in length=64: .*at least 66"
    with pytest.raises(ArchlabError, match=expected):
        load_protocol("paper").with_value("length", 64)
    assert load_protocol("paper").with_settings("base").with_value("length", 64).num_trials == 36


def test_an_architecture_that_does_not_fit_the_width_is_refused_before_any_trial(small):
    with pytest.raises(ArchlabError, match=r"mh-hyena\(heads=16\).*32|mh-attention\(heads=3\): width 32"):
        make_plan(small, ["mh-attention(heads=3) swiglu"])
    assert make_plan(small, ["transformer++"]).architectures[0].layers[0].knobs()["heads"] == 2


def changed(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not YAML: "),
        ("", "None: give a mapping of summary, dim, layer_defaults, seeds, grid, recipe, tasks"),
        ("- dim", "['dim']: give a mapping of summary, dim, "),
        (changed("dim:", "width:"), "unknown field 'width': known: dim, "),
        (changed("seeds: [0, 1]\n", ""), "seeds is missing"),
        (changed("summary: a small one\n", ""), "summary is missing"),
        (changed("a small one", "[1]"), "summary=[1]: give text"),
        (changed("dim: 32", 'dim: "64"'), "dim='64': give a whole number of at least 1"),
        (changed("dim: 32", "dim: 0"), "dim=0: give a whole number of at least 1"),
        (changed("dim: 32", "dim: 32.0"), "dim=32.0: give a whole number of at least 1"),
        (changed("[0, 1]", "3"), "seeds=3: give a list of whole numbers of at least 0 that is not empty"),
        (changed("[0, 1]", "[]"), "seeds=[]: give a list of whole numbers of at least 0 that is not empty"),
        (changed("[0, 1]", "[0, one]"), "seeds='one': give a whole number of at least 0"),
        (changed("[0, 1]", "[-1]"), "seeds=-1: give a whole number of at least 0"),
        (
            changed("[1.0e-3, 2e-3]", "1.0e-3"),
            "tasks.compression: grid: learning_rate=0.001: give a list of numbers above 0 that is not empty",
        ),
        (
            changed("[1.0e-3, 2e-3]", "[fast]"),
            "tasks.compression: grid: learning_rate='fast': give a number above 0",
        ),
        (
            changed("[0, 0.1]", "[0, -0.1]"),
            "tasks.compression: grid: weight_decay=-0.1: give a number of at least 0",
        ),
        (changed(", weight_decay: [0, 0.1]}", "}"), "tasks.compression: grid: weight_decay is missing"),
        (
            changed("{learning_rate: [1.0e-3, 2e-3], weight_decay: [0, 0.1]}", "[1]"),
            "grid=[1]: give a mapping",
        ),
        (
            changed("{learning_rate: [5.0e-3]}", "{lr: [1]}"),
            "tasks.memorization: grid: unknown field 'lr': known: learning_rate",
        ),
        (changed("{steps: 8, ", "{stepps: 8, "), "tasks.compression: recipe: unknown field 'stepps': did you mean 'steps'?"),
        (
            changed("{steps: 8, ", "{schedule: linear, "),
            "tasks.compression: recipe: schedule='linear': give one of cosine, constant",
        ),
        (changed("{steps: 8, batch_size: 8}", "fast"), "recipe='fast': give a mapping"),
        (changed("{heads: 2}", "{head: 2}"), "layer_defaults: unknown knob of mh-attention: 'head': did you mean 'heads'?"),
        (
            changed("{heads: 2}", "{heads: two}"),
            "layer_defaults: mh-attention(heads=two): 'two' is of type str, give a value of type int",
        ),
        (changed("{heads: 2}", "{heads: 0}"), "layer_defaults: mh-attention: heads=0: give a whole number of at least 1"),
        (changed("{heads: 2}", "2"), "layer_defaults.mh-attention=2: give a mapping"),
        (
            changed("{mh-attention: {", "{mh-atention: {"),
            "layer_defaults: unknown layer 'mh-atention': did you mean 'mh-attention'?",
        ),
        (changed("  compression:", "  compresion:"), "tasks.compresion: unknown task 'compresion': did you mean 'compression'?"),
        (changed("vary: {", "varry: {"), "tasks.compression: unknown field 'varry': did you mean 'vary'?"),
        (
            changed("{base: {length: 8}, vary: {length: [16, 32], vocab_size: [32]}}", "16"),
            "tasks.compression=16: give a mapping",
        ),
        (changed("{length: 8}", "8"), "tasks.compression: base=8: give a mapping"),
        (changed("{length: 8}", "{length: 1}"), "tasks.compression: compression: length=1: no room for a token"),
        (changed("{length: 8}", "{len: 8}"), "tasks.compression: unknown knob of compression: 'len'"),
        (changed("[16, 32]", "16"), "tasks.compression: vary.length=16: give a list that is not empty"),
        (changed("[16, 32]", "[long]"), "tasks.compression: compression: length='long': give a whole number from 1 to 1048576"),
        (SMALL[: SMALL.index("tasks:")] + "tasks: {}", "tasks are empty: give at least one of in-context-recall, "),
        (SMALL[: SMALL.index("tasks:")] + "tasks:", "tasks are empty: give at least one of in-context-recall, "),
        (
            SMALL[: SMALL.index("tasks:")] + "tasks: [compression]",
            "tasks=['compression']: give a mapping of names to values",
        ),
        (SMALL[: SMALL.index("tasks:")] + "tasks: {1: {}}", "tasks: key=1: give text"),
    ],
)
def test_files_with_a_mistake_are_refused_in_one_line(text, message):
    with pytest.raises(ArchlabError, match=f"^protocol mine: {re.escape(message)}") as refusal:
        parse_protocol("mine", text)
    assert "\n" not in str(refusal.value)


def test_files_are_read_by_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SMALL)
    assert load_protocol(str(path)) == replace(parse_protocol("mine", SMALL), name="mine")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArchlabError, match=r"^protocol .*mine.yaml: cannot be read: not text in UTF-8$"):
        load_protocol(str(path))
    with pytest.raises(ArchlabError, match=r"missing.yaml: cannot be read: no such file or directory$"):
        load_protocol(str(tmp_path / "missing.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ArchlabError, match=r"folder.yaml: cannot be read: is a directory$"):
        load_protocol(str(tmp_path / "folder.yaml"))
    with pytest.raises(ArchlabError, match=r"^unknown protocol 'papr': did you mean 'paper'"):
        load_protocol("papr")


def test_round_trip(small):
    for protocol in (small, small.with_value("recipe.warmup", 0.5).with_seeds([3]), load_protocol("mad-lab")):
        assert Protocol.from_dict(json.loads(json.dumps(asdict(protocol)))) == protocol


def test_a_suite_chooses_the_tasks():
    assert set(load_protocol("quick", "state").tasks) == {"parity", "modular-addition", "permutation-words", "mano", "stack"}
    everything = load_protocol("quick", "all")
    assert set(everything.tasks) == {name for suite in ("mad", "recall", "state") for name in load_protocol("quick", suite).tasks}
    assert everything.covers(load_protocol("quick"))
    with pytest.raises(ArchlabError, match="unknown suite 'stat': did you mean 'state'"):
        load_protocol("quick", "stat")
    with pytest.raises(ArchlabError, match="unknown suite 'state': known: all, mad"):
        load_protocol("paper", "state")


def test_defaults_part_protocols_only_where_both_have_them():
    quick = load_protocol("quick")
    before = replace(quick, layer_defaults={name: knobs for name, knobs in quick.layer_defaults.items() if name != "nsa"})
    assert quick.covers(before)
    assert before.covers(quick)
    other = replace(quick, layer_defaults={**quick.layer_defaults, "nsa": {"heads": 2}})
    assert not other.covers(quick)
    assert not quick.covers(other)


def test_levels_are_those_that_the_task_has_and_a_plan_outlives_its_task():
    def plan(task, levels, num_evaluation=40):
        return TaskPlan((task,), Recipe(levels=levels, num_evaluation=num_evaluation), Grid((1e-3,), (0.0,)))

    copying = setting("selective-copying", length=34)
    assert plan(copying, [2, 4]).recipe.levels == (2, 4)
    for task, levels, num_evaluation, reason in (
        (setting("parity"), (2, 4), 40, r"recipe: levels=\[2, 4\]: parity has no levels: leave them out"),
        (copying, (2, 17), 40, "num_tokens_to_copy=17 does not fit in length=34"),
        (copying, (1, 2, 4), 2, r"levels=\[1, 2, 4\]: 2 sequences are too few: give more, or fewer levels"),
    ):
        with pytest.raises(ArchlabError, match=reason):
            plan(task, levels, num_evaluation)
    assert plan(stored_setting("gone", setting("parity").knobs()), (2, 4)).recipe.levels == (2, 4)
