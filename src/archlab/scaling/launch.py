"""The commands that train a plan on several GPUs."""

import shlex
from pathlib import Path

RECIPE = "--set warmup=params --set beta2=batch --set precision=bf16 --set recompute=true --set micro_batch=4"
"""OLMo-core's warm-up and beta2, and what lets billions of parameters train on 8 GPUs of 80 GiB."""
GPUS_PER_NODE = 8
VALIDATION_TOKENS = 1 << 23
"""4,096 sequences of 2048; the recipe's default is 64 of them."""


def launch_commands(plan: str, gpus: int) -> dict[str, str]:
    """Return the commands by what starts them; each trains what the store lacks, so it may be given again.

    torchrun is for a single node. Under Slurm all nodes train one model after the other; under Ray every node is a job of its
    own, and the jobs divide the training runs by the claims in their store.
    """
    nodes, per_node = max(1, -(-gpus // GPUS_PER_NODE)), min(gpus, GPUS_PER_NODE)
    options = f"--device cuda {RECIPE} --set validation_tokens={VALIDATION_TOKENS}"
    run = f"archlab scale run {shlex.quote(plan)} {options}"
    alone = f"torchrun --standalone --nproc-per-node {per_node} --no-python"
    rendezvous = "--rdzv-backend c10d --rdzv-endpoint \\$(scontrol show hostnames \\$SLURM_JOB_NODELIST | head -n1):29500"
    everywhere = f"srun torchrun --nnodes {nodes} --nproc-per-node {per_node} {rendezvous} --no-python {run}"
    # a job starts where Ray was started on its node; a file is no store for several machines
    store = "$PWD/archlab.db" if nodes == 1 else "${ARCHLAB_STORE:?a database that all nodes reach}"
    places = f"--store {store} --checkpoints $PWD/archlab.checkpoints"
    there = shlex.quote(plan) if Path(plan).is_absolute() else f"$PWD/{shlex.quote(plan)}"
    job = f"ray job submit --no-wait --entrypoint-num-gpus {per_node} -- {alone} archlab scale run {there} {options} {places}"
    return ({"torchrun": f"{alone} {run}"} if nodes == 1 else {}) | {
        "Slurm": f'sbatch --nodes {nodes} --ntasks-per-node 1 --gpus-per-node {per_node} --wrap "{everywhere}"',
        "Ray": job if nodes == 1 else f"for node in $(seq {nodes}); do {job}; done",
    }
