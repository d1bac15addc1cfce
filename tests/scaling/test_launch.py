"""The commands that start a plan on several GPUs."""

import re
import shutil
import subprocess

import pytest

from archlab.scaling.estimate import Cost, device_bytes, stated_costs
from archlab.scaling.ladder import load_ladder
from archlab.scaling.launch import launch_commands
from archlab.scaling.planner import make_plan

LADDER = load_ladder("paper").with_values(budgets=(4e18, 8e19), sizes=3)
RUNS = make_plan(LADDER, ["transformer++"]).runs
JOBS = list(zip(RUNS, stated_costs(RUNS, LADDER.flops_per_second), strict=True))


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
    commands = launch_commands(plan, 8, JOBS)
    assert commands.keys() == {"torchrun", "Slurm", "Ray"}
    assert all(f"validation_tokens={8 * 2**20}" in command for command in commands.values())
    assert shown in commands["torchrun"]
    assert shown in commands["Slurm"]
    assert in_job in commands["Ray"]


def test_nodes_share_what_all_of_them_reach():
    commands = launch_commands("plan.yaml", 64, JOBS)
    assert commands.keys() == {"Slurm", "Ray"}
    assert "ARCHLAB_STORE" in commands["Slurm"]
    assert "ARCHLAB_STORE" in commands["Ray"]


def test_small_models_have_a_gpu_each_and_large_ones_all():
    needs = sorted(cost.bytes for _, cost in JOBS)
    small, large = launch_commands("plan.yaml", 16, JOBS, memory=needs[3])["Slurm"].split("\nEND\n")
    assert "--array=0-3\n" in small
    assert "--gpus-per-task=1" in small
    assert "torchrun" not in small
    assert (
        "--nodes=2\n#SBATCH --ntasks-per-node=1\n#SBATCH --gpus-per-node=8\n#SBATCH --cpus-per-task=64\n#SBATCH --mem=" in large
    )
    assert "srun --cpus-per-task=64 torchrun --nnodes 2 --nproc-per-node 8" in large  # srun does not take it from the job
    most, least = (float(re.search(r"--params (\d+),(\S+) ", part)[n]) for part, n in ((small, 2), (large, 1)))
    assert [run.params <= most for run, _ in JOBS] == [run.params < least for run, _ in JOBS]
    assert sum(run.params <= most for run, _ in JOBS) == 4
    assert "archlab-large" not in launch_commands("plan.yaml", 16, JOBS, memory=1e12)["Slurm"]
    assert "archlab-small" not in launch_commands("plan.yaml", 16, JOBS, memory=1e6)["Slurm"]


def test_a_job_asks_for_the_memory_of_the_largest_model_and_its_checkpoint():
    needs = sorted(cost.bytes for _, cost in JOBS)
    small, large = launch_commands("plan.yaml", 16, JOBS, memory=needs[3])["Slurm"].split("\nEND\n")
    asked = [int(re.search(r"#SBATCH --mem=(\d+)G\n", part)[1]) for part in (small, large)]
    sizes = sorted(run.params for run in RUNS)
    for gib, processes, params in zip(asked, (1, 8), (sizes[3], sizes[-1]), strict=True):
        assert 16 * params / 2**30 <= gib - 16 * processes < 16 * params / 2**30 + 1


def test_every_node_has_a_replica_where_the_models_fit():
    per_node = max(device_bytes(run, gpus=8) for run in RUNS)
    assert per_node < max(cost.bytes for _, cost in JOBS)
    assert " --replicas 4 &\n" in launch_commands("plan.yaml", 32, JOBS, memory=per_node)["Slurm"]
    assert "--replicas" not in launch_commands("plan.yaml", 32, JOBS, memory=per_node - 1)["Slurm"]
    assert "--replicas" not in launch_commands("plan.yaml", 8, JOBS, memory=per_node)["Slurm"]


@pytest.mark.parametrize(("hours", "asked"), [(3, 14), (10, 24)])
def test_a_job_asks_for_its_estimate_but_for_no_more_than_a_day(hours: float, asked: int):
    script = launch_commands("plan.yaml", 2, [(run, Cost(3600 * hours, 0)) for run in RUNS])["Slurm"]
    assert f"#SBATCH --time={asked}:00:00\n" in script  # three runs a GPU, half as much again


@pytest.mark.parametrize("memory", [1e6, 1e12])
def test_the_scripts_of_slurm_are_whole(memory: float, tmp_path):
    command = launch_commands("my plan.yaml", 16, JOBS, memory)["Slurm"]
    script = command.split("<<'END'\n")[1].removesuffix("\nEND")
    for text in (command, script):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-"], input=script, text=True, check=True)


def test_a_job_that_its_time_limit_ends_is_queued_again(tmp_path):
    command = launch_commands("plan.yaml", 1, JOBS)["Slurm"]
    script = command.split("<<'END'\n")[1].removesuffix("\nEND")
    (tmp_path / "srun").write_text(
        "#!/bin/bash\ntrap 'echo checkpoint; exit 143' TERM\nsleep 0.5\nkill -TERM $PPID\nwhile :; do sleep 0.1; done\n"
    )
    (tmp_path / "scontrol").write_text('#!/bin/bash\necho "$@"\n')
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "ARCHLAB_STORE": "s"}
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, env=environment, timeout=60, check=False)
    assert done.stdout == "checkpoint\nrequeue 7\n"
