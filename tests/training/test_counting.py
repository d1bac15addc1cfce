"""What a step would do on a GPU, counted on tensors without data."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from archlab.training.counting import counting


def test_a_product_reads_its_operands_and_writes_its_result():
    with counting() as (_, counts):
        torch.mm(torch.empty(8, 16), torch.empty(16, 4))
    assert (counts.num_kernels, counts.bytes, counts.flops) == (1, 4 * (8 * 16 + 16 * 4 + 8 * 4), 2 * 8 * 16 * 4)
    assert counts.least_bytes == counts.bytes
    assert not next(iter(counts.kernels)).is_half


def test_a_whole_step_is_counted_the_backward_pass_too():
    with counting() as (_, counts):
        weight = torch.empty(4, 16, requires_grad=True)
        F.linear(torch.empty(8, 16, requires_grad=True), weight).backward(torch.empty(8, 4))
    assert counts.flops == 3 * 2 * 8 * 16 * 4


def test_views_and_empty_memory_launch_nothing():
    with counting() as (_, counts):
        torch.empty(8, 16).transpose(0, 1).unsqueeze(0).expand(3, -1, -1)
    assert counts.num_kernels == 0


def test_an_expanded_axis_is_read_once():
    with counting() as (_, counts):
        torch.empty(16).expand(8, 16) + torch.empty(8, 16)
    assert counts.bytes == 4 * (16 + 2 * 8 * 16)
    assert counts.least_bytes == 0


def test_what_is_overwritten_is_not_read_and_what_is_added_to_is():
    for change, passes in ((torch.Tensor.zero_, 1), (lambda x: x.add_(1), 2)):
        with counting() as (_, counts):
            change(torch.empty(8))
        assert counts.bytes == passes * 4 * 8


def test_looking_up_rows_reads_no_whole_table():
    with counting() as (_, counts):
        F.embedding(torch.empty(10, dtype=torch.int64), torch.empty(50_000, 16))
    assert counts.bytes == 8 * 10 + 2 * 4 * 10 * 16


def test_autocast_computes_in_bfloat16():
    with counting() as (_, counts), torch.autocast("cpu", torch.bfloat16):
        F.linear(torch.empty(8, 16), torch.empty(4, 16))
    assert {kernel.is_half for kernel in counts.kernels if kernel.flops} == {True}


def test_who_reads_a_value_waits_for_the_device():
    with counting() as (_, counts):
        x = torch.empty(8)
        assert float(x.sum()) == 1.0
        assert x.long()[:2].tolist() == [1, 1]
    assert counts.waits == {"_local_scalar_dense": 3}


@pytest.mark.parametrize("needs_data", [lambda x: x[x > 0], lambda x: x.nonzero(), lambda x: torch.bincount(x.long())])
def test_a_shape_that_depends_on_data_waits_for_the_device(needs_data):
    with counting() as (_, counts), pytest.raises(Exception, match="aten"):
        needs_data(torch.empty(8))
    assert counts.waits.total() == 1


def test_a_factor_whose_errors_are_checked_waits_for_the_device():
    with counting() as (_, counts):
        torch.linalg.lu_factor(torch.empty(3, 4, 4))
    assert counts.waits == {"_linalg_check_errors": 1}


def test_layers_see_no_cpu_inside_and_one_outside():
    with counting() as (mode, _):
        assert not mode.from_tensor(torch.ones(1)).is_cpu
    assert "is_cpu" not in vars(FakeTensor)
    assert torch.ones(1).is_cpu
