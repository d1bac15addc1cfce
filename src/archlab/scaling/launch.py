"""The commands that train a plan on several GPUs."""


def launch_commands(plan: str, gpus: int, gpus_per_node: int = 8) -> list[str]:
    """One command for a single node, and one for Slurm; both resume what is unfinished when they run again.

    Args:
        plan: the plan's file.
        gpus: how many in all.
        gpus_per_node: of a machine of the cluster.
    """
    nodes, per_node = max(1, -(-gpus // gpus_per_node)), min(gpus, gpus_per_node)
    run = f"archlab scale run {plan} --device cuda --set precision=bf16"
    rendezvous = "--rdzv-backend c10d --rdzv-endpoint \\$(scontrol show hostnames \\$SLURM_JOB_NODELIST | head -n1):29500"
    everywhere = f"srun torchrun --nnodes {nodes} --nproc-per-node {per_node} {rendezvous} --no-python {run}"
    slurm = f'sbatch --nodes {nodes} --ntasks-per-node 1 --gpus-per-node {per_node} --wrap "{everywhere}"'
    single = [f"torchrun --standalone --nproc-per-node {per_node} --no-python {run}"] if nodes == 1 else []
    return [*single, slurm]
