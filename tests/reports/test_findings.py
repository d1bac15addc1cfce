from dataclasses import replace

from archlab.benchmark.spending import Spending
from archlab.reports.findings import spent


def test_what_was_spent_says_what_dropping_may_have_cost():
    exact = Spending(
        trainings=72, trainings_started=52, dropped=0, steps=64_000, steps_spent=40_000, flops=5.01e13, flops_spent=3.46e13
    )
    assert spent(exact) == (
        "20 of 72 trainings left out, 0 dropped; 40k of 64k steps and 3.46e+13 of 5.01e+13 FLOPs spent: "
        "30.9 % saved by stopping early and by racing"
    )
    assert spent(replace(exact, dropped=28)).endswith(
        "; where it was measured, dropping cost a task 0.1 points on average and 2.2 at most"
    )
