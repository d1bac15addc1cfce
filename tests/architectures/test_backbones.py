import math

import pytest
import torch

from archlab.architectures import CATALOGUE, architecture
from archlab.architectures.backbones import reinit_as_reference, sin_cos_positions
from archlab.layers.ops.flop_counter import count_flops
from archlab.training.optimiser import make_optimizer

BACKBONES = ("language-model", "tied-language-model", "auto-encoder")
NORMS = ("rmsnorm", "layernorm")
SHAPE = {"vocab_size": 11, "dim": 64}


def build(spec, backbone="language-model", length=12, **options):
    torch.manual_seed(0)
    return architecture(spec).build(max_length=length, backbone=backbone, **SHAPE | options)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", CATALOGUE)
def test_predicted_parameters_are_those_built(name, backbone, norm):
    value = architecture(name)
    with torch.device("meta"):
        model = value.build(max_length=40, backbone=backbone, norm=norm, **SHAPE)
    built = sum(p.numel() for p in model.parameters())
    assert value.num_params(length=40, backbone=backbone, norm=norm, **SHAPE) == built


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", ["transformer++", "linear-attention", "striped-mh-hyena", "hyena", "mamba-swiglu"])
def test_predicted_flops_are_those_counted(name, backbone):
    length = 32
    model = build(name, backbone, length)
    counted = count_flops(model, torch.zeros(1, length, dtype=torch.int64))
    assert architecture(name).flops(length=length, backbone=backbone, **SHAPE) == pytest.approx(counted, rel=0.02)


def test_flops_without_a_vocabulary_leave_the_unembedding_out():
    value = architecture("transformer++")
    assert value.flops(length=10, dim=64, vocab_size=7) - value.flops(length=10, dim=64) == 2 * 10 * 64 * 7


def test_state_is_the_sum_over_layers():
    value = architecture("striped-mamba")
    assert value.state_size(length=32, dim=64) == sum(x.state_size(64, 32) for x in value.layers)
    assert architecture("swiglu mlp").state_size(length=32, dim=64) == 0


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("length", [1, 7, 12])
def test_logits_have_a_row_for_every_token(backbone, length):
    model = build("striped-mh-hyena", backbone)
    assert model(torch.zeros(3, length, dtype=torch.int64)).shape == (3, length, 11)


def test_the_language_model_looks_back_only():
    model = build("transformer++").eval()
    ids = torch.arange(10)[None]
    changed = ids.clone()
    changed[0, 6] = 0
    difference = (model(ids) - model(changed)).abs().sum(-1)[0]
    assert torch.all(difference[:6] == 0)
    assert torch.all(difference[6:] > 0)


def test_the_auto_encoder_reads_the_last_feature_only():
    model = build("transformer++", "auto-encoder").eval()
    ids = torch.randint(11, (2, 12))
    whole = model(ids)
    code = ids.clone()
    seen = []
    last = model.layers[model.num_mixing - 1]
    hook = last.register_forward_hook(lambda *args: seen.append(args[-1]))
    model(code)
    hook.remove()
    perturbed = seen[0].clone()
    perturbed[:, :-1] = torch.randn_like(perturbed[:, :-1])
    replace = last.register_forward_hook(lambda *_: perturbed)
    assert torch.equal(model(ids), whole)  # nothing but the last position is read
    perturbed[:, -1] += 1.0
    assert torch.all((model(ids) - whole).abs().amax(-1) > 1e-4)  # and every position is decoded from it
    replace.remove()


@pytest.mark.parametrize(
    ("spec", "num_mixing"),
    [
        ("transformer++", 3),
        ("mh-attention swiglu mlp", 1),
        ("swiglu mh-attention", 2),
        ("swiglu mlp", 0),
        ("mh-attention(heads=2) swiglu rwkv-7-channel-mixer mlp", 3),
    ],
)
def test_what_follows_the_last_mixing_of_positions_runs_where_it_is_asked_for(spec, num_mixing):
    model = build(spec)
    ids = torch.randint(11, (3, 12))
    ran = []
    for place, layer in enumerate(model.layers):
        layer.register_forward_hook(lambda _module, args, _out, place=place: ran.append((place, args[0].shape[1])))
    whole = model(ids)
    ran.clear()
    picked = model.logits(model.features(ids)[:, [2, 7]])
    assert torch.allclose(picked, whole[:, [2, 7]], atol=1e-5)
    assert ran == [(place, 12 if place < num_mixing else 2) for place in range(len(model.layers))]


def test_the_auto_encoder_tells_positions_apart():
    model = build("transformer++", "auto-encoder").eval()
    rows = model(torch.zeros(1, 12, dtype=torch.int64))[0]
    assert torch.pdist(rows).min() > 1e-4


@pytest.mark.parametrize(("length", "dim"), [(5, 8), (300, 64), (3, 2), (4, 7)])
def test_positions_follow_the_formula(length, dim):
    table = sin_cos_positions(length, dim)
    half = dim // 2
    for position in range(length):
        for i in range(half):
            angle = position * 10_000 ** (-i / max(half - 1, 1))
            assert table[position, i] == pytest.approx(math.sin(angle), abs=1e-4)
            assert table[position, half + i] == pytest.approx(math.cos(angle), abs=1e-4)
    assert table.shape == (length, dim)


@pytest.mark.parametrize("std", [0.02, 1.0])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_embedding_has_the_spread_that_was_asked_for(backbone, std):
    model = build("transformer++", backbone, vocab_size=2000, embedding_std=std)
    assert model.embedding.weight.std().item() == pytest.approx(std, rel=0.02)
    if backbone != "tied-language-model":
        assert torch.all(model.unembedding.bias == 0)


def test_models_of_one_seed_are_equal_and_of_two_are_not():
    first, again = build("striped-mamba").state_dict(), build("striped-mamba").state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    torch.manual_seed(1)
    other = architecture("striped-mamba").build(max_length=12, **SHAPE).state_dict()
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_the_references_initialisation_zeroes_the_biases_of_a_language_models_linear_layers():
    model = build("transformer++", dim=128)
    before = {name: p.clone() for name, p in model.named_parameters()}
    reinit_as_reference(model)
    biases = [f"{name}.bias" for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m.bias is not None]
    assert biases
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, torch.zeros_like(parameter) if name in biases else before[name])


def test_the_references_initialisation_draws_an_auto_encoders_linear_layers_anew():
    model = build("mamba", "auto-encoder", dim=128)
    before = {name: p.clone() for name, p in model.named_parameters()}
    reinit_as_reference(model)
    linear = {
        f"{name}.{part}" for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) for part in ("weight", "bias")
    }
    for name, parameter in model.named_parameters():
        if name.endswith("dt_bias"):
            assert torch.all(parameter == 0)  # the bias of a linear layer in the authors' code
        elif name not in linear:
            assert torch.equal(parameter, before[name])
        elif name.endswith("bias"):
            assert torch.all(parameter == 0)
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("backbone", ["language-model", "auto-encoder"])
@pytest.mark.parametrize("spec", ["gated-deltanet", "kda", "mamba-2", "log-linear-attention", "log-linear-gated-deltanet"])
def test_the_references_initialisation_spares_step_sizes_that_are_no_biases_of_linear_layers(spec, backbone):
    model = build(spec, backbone, dim=32)
    step_sizes = [parameter for name, parameter in model.named_parameters() if name.endswith("dt_bias")]
    before = [parameter.clone() for parameter in step_sizes]
    reinit_as_reference(model)
    assert step_sizes
    assert all(map(torch.equal, step_sizes, before))


@pytest.mark.parametrize("backbone", ["language-model", "auto-encoder"])
def test_the_references_initialisation_zeroes_the_gates_of_mlstm_but_not_the_rates_of_rwkv_7(backbone):
    model = build("mlstm rwkv-7", backbone, dim=32)
    mlstm, rwkv = model.layers[0].layer, model.layers[1].layer
    low_rank = [p for part in (rwkv.decay_proj, rwkv.rate_proj, rwkv.gate_proj) for p in part.parameters()]
    before = [parameter.clone() for parameter in low_rank]
    reinit_as_reference(model)
    assert torch.all(mlstm.gate_bias == 0)
    assert all(map(torch.equal, low_rank, before))


def test_the_references_initialisation_spares_mambas_step_sizes_in_a_language_model():
    model = build("mamba", dim=32)
    before = model.layers[0].layer.dt_bias.clone()
    reinit_as_reference(model)
    assert torch.equal(model.layers[0].layer.dt_bias, before)


def test_tied_embeddings_are_one_table_that_is_not_decayed():
    shape = {"vocab_size": 50, "dim": 32, "backbone": "tied-language-model"}
    torch.manual_seed(0)
    model = architecture("mh-attention swiglu").build(max_length=16, embedding_std=0.05, **shape)
    tables = [parameter for parameter in model.parameters() if 50 in parameter.shape]
    assert [table.shape for table in tables] == [(50, 32)]
    assert tables[0].std().item() == pytest.approx(0.05, rel=0.1)
    decayed, exempt = make_optimizer(model, learning_rate=1e-3, weight_decay=0.1, betas=(0.9, 0.95)).param_groups
    assert any(parameter is tables[0] for parameter in exempt["params"])
    assert not any(parameter is tables[0] for parameter in decayed["params"])
    ids_bl = torch.arange(16)[None]
    model.norm.weight.data.zero_()
    assert torch.equal(model(ids_bl), torch.zeros(1, 16, 50))  # no bias
    untied = architecture("mh-attention swiglu")
    assert untied.flops(length=16, **shape) == untied.flops(length=16, **shape | {"backbone": "language-model"})
