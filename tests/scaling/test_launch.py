"""The commands that start a plan on several GPUs."""

import pytest

from archlab.scaling.launch import launch_commands


@pytest.mark.parametrize(
    ("plan", "shown", "in_job"),
    [
        ("plan.yaml", "run plan.yaml ", "run $PWD/plan.yaml "),
        ("/data/plan.yaml", "run /data/plan.yaml ", "run /data/plan.yaml "),
        ("my plan.yaml", "run 'my plan.yaml' ", "run $PWD/'my plan.yaml' "),
        ("a", "run a ", "run $PWD/a "),
    ],
)
def test_a_plan_is_found_wherever_the_command_runs(plan: str, shown: str, in_job: str):
    commands = launch_commands(plan, gpus=8)
    assert commands.keys() == {"torchrun", "Slurm", "Ray"}
    assert all(f"validation_tokens={8 * 2**20}" in command for command in commands.values())
    assert shown in commands["torchrun"]
    assert shown in commands["Slurm"]
    assert in_job in commands["Ray"]


def test_nodes_share_what_all_of_them_reach():
    commands = launch_commands("plan.yaml", gpus=64)
    assert commands.keys() == {"Slurm", "Ray"}
    assert "sbatch --nodes 8" in commands["Slurm"]
    assert "ARCHLAB_STORE" in commands["Ray"]
