"""How much memory a trial will take at its peak, found out without computing it."""

import os
from pathlib import Path
from typing import Any

from archlab.errors import ArchlabError
from archlab.training.trial import Trial

PROCESS_BYTES = 350 << 20
"""What a worker takes before it trains: Python, PyTorch and its libraries."""
SLACK = 4 / 3
"""What the allocator and the workspace of operations add: for 12 layers at two shapes, the peak was 1.1 to 1.5 times the sum."""


def peak_bytes(trial: Trial) -> int:
    """Bytes that a worker needs for the trial, its process aside.

    Parameters, gradients and AdamW's two moments; the three splits of the data; the activations that the backward pass
    needs, each storage once; and the largest tensor twice, for what a backward pass holds while it computes. The training
    step runs on tensors that have shapes and no data.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from archlab.training.data import split_tensors

    batch = min(trial.recipe.batch_size, trial.setting.num_train_examples)
    inputs, targets = split_tensors(trial.setting, "train", batch, trial.seed, "cpu")
    answers = int((targets >= 0).sum())
    saved: dict[int, int] = {}
    largest = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        kept.append(storage)  # a storage that is freed would give its address to another one
        largest = max(largest, storage.nbytes())
        return tensor

    kept: list[Any] = []
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        model = trial.architecture.build(
            vocab_size=trial.setting.vocab_size,
            max_length=trial.setting.length,
            dim=trial.dim,
            backbone=trial.setting.backbone,
            norm=trial.recipe.norm,
        )
        features = model.features(mode.from_tensor(inputs))
        picked = features.flatten(0, 1).index_select(0, torch.zeros(answers, dtype=torch.int64))
        labels = torch.zeros(answers, dtype=torch.int64)
        torch.nn.functional.cross_entropy(model.logits(picked).float(), labels)
    parameters = {id(p.untyped_storage()): p.numel() * p.element_size() for p in model.parameters()}
    weights: int = sum(parameters.values())
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    activations = sum(size for storage, size in saved.items() if storage not in own)
    examples = trial.setting.num_train_examples + 2 * trial.recipe.num_evaluation
    data = 2 * 8 * examples * inputs.shape[1]
    return round(SLACK * (4 * weights + data + activations + 2 * largest))


def available_bytes() -> int:
    """Memory that this machine, or the container that this process runs in, has to give."""
    limits = [int(line.split()[1]) << 10 for line in _read("/proc/meminfo").splitlines() if line.startswith("MemAvailable:")]
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():
        limits.append(int(limit) - int(used))
    if not limits:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits)


def check_memory(trials: list[Trial], num_workers: int) -> int:
    """The bytes that all workers need at once; the trial that takes the most decides.

    Raises:
        ArchlabError: they do not fit into this machine's memory; names the trial, and how many workers fit.
    """
    hungriest: dict[tuple[str, str], Trial] = {}
    for trial in trials:
        kind = str(trial.architecture), trial.setting.name
        if kind not in hungriest or _tokens(trial) > _tokens(hungriest[kind]):
            hungriest[kind] = trial
    if not hungriest:
        return 0
    most, trial = max(((peak_bytes(trial), trial) for trial in hungriest.values()), key=lambda found: found[0])
    workers = min(num_workers, len(trials))
    needed, available = workers * (most + PROCESS_BYTES), available_bytes()
    if needed > available and trial.device == "cpu":
        fitting = available // (most + PROCESS_BYTES)
        fix = f"--workers {fitting}" if fitting else "a smaller batch or length"
        raise ArchlabError(
            f"{workers} workers need {needed / 2**30:.1f} GiB for {trial.architecture.label} on {trial.setting}, "
            f"{available / 2**30:.1f} GiB are free: use {fix}"
        )
    return needed


def _tokens(trial: Trial) -> int:
    setting = trial.setting
    return min(trial.recipe.batch_size, setting.num_train_examples) * setting.input_length * (128 + setting.vocab_size)


def _read(path: str) -> str:
    return Path(path).read_text(encoding="ascii") if Path(path).exists() else ""
