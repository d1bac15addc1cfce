"""The modelled time of a protocol is the sum of its steps' modelled kernels."""

import pytest

from archlab.accelerators import accelerator
from archlab.errors import ArchlabError
from archlab.mad.estimate import all_flops
from archlab.mad.plan import make_plan
from archlab.mad.protocol import load_protocol
from archlab.mad.roofline import model, step_counts, step_seconds


def test_a_protocol_takes_all_steps_of_its_trials():
    (row,) = model(["mlp"], ["smoke"], "a100").steps
    trials = [t for t in make_plan(load_protocol("smoke"), ["mlp"]).trials() if t.seed == 0]
    card = accelerator("a100")
    seconds = (t.num_steps * step_seconds(step_counts(t), card) * all_flops(t) / t.flops for t in trials)
    assert row.seconds == pytest.approx(sum(seconds))
    assert row.fused_seconds < row.seconds
    assert row.fused_ms < row.ms < row.eager_ms
    assert row.waits == 0


def test_a_step_computes_what_the_architecture_says():
    (trial,) = {t.kind: t for t in make_plan(load_protocol("smoke"), ["mh-attention swiglu"]).trials()[:1]}.values()
    counts = step_counts(trial)
    batch = min(trial.recipe.batch_size, trial.setting.num_train_examples)
    per_step = trial.flops / trial.recipe.num_examples(trial.setting.num_train_examples) * batch
    assert counts.flops == pytest.approx(per_step, rel=0.2)  # attention recomputes its scores in the backward pass
    assert counts.least_bytes < counts.bytes


def test_every_kind_of_step_is_counted_once_and_told():
    seen = []
    model(["mlp"], ["smoke"], "h100", lambda *done: seen.append(done))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] == len(seen) - 1


def test_an_unknown_accelerator_is_refused_before_anything_is_counted():
    with pytest.raises(ArchlabError, match="unknown accelerator"):
        model(["no-such-layer"], ["smoke"], "tpu")
