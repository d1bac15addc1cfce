"""The commands that train a plan on several GPUs."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from archlab.scaling.estimate import MEMORY, RECIPE, Cost, device_bytes
from archlab.scaling.training_plan import LMRun

VALIDATION_TOKENS = 1 << 23
"""4,096 sequences of 2048; the recipe's default is 64 of them."""
_FIELDS = {"warmup": "params", "beta2": "batch"} | RECIPE | {"validation_tokens": VALIDATION_TOKENS}
OPTIONS = "--device cuda " + " ".join(f"--set {name}={value}".lower() for name, value in _FIELDS.items())
"""OLMo-core's warm-up and beta2, and what lets billions of parameters train on 8 GPUs of 80 GiB."""
GPUS_PER_NODE = 8
CPUS_PER_GPU = 8
HOST_GIB = 16
"""Memory of the host that a process needs beside the model: libraries, the CUDA context, pages of the corpus."""
SLACK = 1.5
"""Time that a Slurm job asks for, over the estimate."""
LONGEST_HOURS = 24
"""Hours that a Slurm job asks for at most: partitions refuse more, and a job that needs more is queued again."""
_JOB = r"""sbatch <<'END'
#!/bin/bash
#SBATCH --job-name={name}
{resources}
#SBATCH --cpus-per-task={cpus}
#SBATCH --mem={memory}
#SBATCH --time={time}
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
: "${{ARCHLAB_STORE:?give a database that all nodes reach}}"
ended=
trap 'ended=yes; kill -TERM "$step"' TERM
srun --cpus-per-task={cpus} {start} &
step=$!
wait "$step"
status=$?
if [ "$ended" ]; then
  wait "$step"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
END"""


def launch_commands(plan: str, gpus: int, jobs: Sequence[tuple[LMRun, Cost]], memory: float | None = None) -> dict[str, str]:
    """Return the commands by what starts them; each trains what the store lacks, so it may be given again.

    torchrun is for a single node. Under Slurm runs that fit the ``memory`` of a GPU train on one each, as an array of jobs that
    divide them by their claims, and larger ones over all GPUs, with a replica on every node where that fits; a job that its time
    limit ends goes on from its checkpoints. Under Ray every node is a job of its own.
    """
    nodes, per_node = max(1, -(-gpus // GPUS_PER_NODE)), min(gpus, GPUS_PER_NODE)
    run = f"archlab scale run {shlex.quote(plan)} {OPTIONS}"
    alone = f"torchrun --standalone --nproc-per-node {per_node} --no-python"
    # a job starts where Ray was started on its node; a file is no store for several machines
    store = "$PWD/archlab.db" if nodes == 1 else "${ARCHLAB_STORE:?a database that all nodes reach}"
    places = f"--store {store} --checkpoints $PWD/archlab.checkpoints"
    there = shlex.quote(plan) if Path(plan).is_absolute() else f"$PWD/{shlex.quote(plan)}"
    job = f"ray job submit --no-wait --entrypoint-num-gpus {per_node} -- {alone} archlab scale run {there} {OPTIONS} {places}"
    return ({"torchrun": f"{alone} {run}"} if nodes == 1 else {}) | {
        "Slurm": _slurm(run, gpus, jobs, memory or MEMORY),
        "Ray": job if nodes == 1 else f"for node in $(seq {nodes}); do {job}; done",
    }


def _slurm(run: str, gpus: int, jobs: Sequence[tuple[LMRun, Cost]], memory: float) -> str:
    """The jobs of the runs that fit on one GPU, and of those that do not."""
    nodes, per_node = max(1, -(-gpus // GPUS_PER_NODE)), min(gpus, GPUS_PER_NODE)
    run += " --checkpoints archlab.checkpoints"
    least = min((one.params for one, cost in jobs if cost.bytes > memory), default=math.inf)
    small = [(one, cost) for one, cost in jobs if one.params < least]
    large = [(one, cost) for one, cost in jobs if one.params >= least]
    parts = []
    if small:
        tasks = min(gpus, len(small))
        seconds = max(sum(cost.seconds for _, cost in small) / tasks, max(cost.seconds for _, cost in small))
        start = f"{run} --workers 1" + (f" --params 0,{least - 1}" if large else "")
        resources = f"#SBATCH --array=0-{tasks - 1}\n#SBATCH --ntasks=1\n#SBATCH --gpus-per-task=1"
        memory_of_host = _memory([one for one, _ in small])
        parts.append(
            _JOB.format(
                name="archlab-small",
                resources=resources,
                cpus=CPUS_PER_GPU,
                memory=memory_of_host,
                time=_time(seconds),
                start=start,
            )
        )
    if large:
        rendezvous = '--rdzv-backend c10d --rdzv-endpoint "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):29500"'
        rendezvous += ' --rdzv-id "$SLURM_JOB_ID"'
        start = f"torchrun --nnodes {nodes} --nproc-per-node {per_node} {rendezvous} --no-python {run}"
        start += f" --params {least},1e15" if small else ""
        shared = max(device_bytes(one, gpus=per_node) for one, _ in large)
        start += f" --replicas {nodes}" if nodes > 1 and shared <= memory else ""
        resources = f"#SBATCH --nodes={nodes}\n#SBATCH --ntasks-per-node=1\n#SBATCH --gpus-per-node={per_node}"
        time = _time(sum(cost.seconds for _, cost in large) / gpus)
        cpus, memory_of_host = CPUS_PER_GPU * per_node, _memory([one for one, _ in large], per_node)
        parts.append(
            _JOB.format(name="archlab-large", resources=resources, cpus=cpus, memory=memory_of_host, time=time, start=start)
        )
    return "\n".join(parts)


def _memory(runs: Sequence[LMRun], processes: int = 1) -> str:
    """The memory of a node that a job asks for.

    One process builds the largest model in float32, and gathers its weights at the end; checkpoints are copies of weights and
    AdamW's moments.
    """
    largest = max(run.params for run in runs)
    return f"{processes * HOST_GIB + math.ceil(16 * largest / 2**30)}G"


def _time(seconds: float) -> str:
    """The time that a job asks for, in Slurm's hours:minutes:seconds: whole hours."""
    return f"{min(LONGEST_HOURS, max(1, math.ceil(SLACK * seconds / 3600)))}:00:00"
