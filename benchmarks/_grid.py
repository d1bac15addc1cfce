"""The six-point grid of the base recall setting, on this project's workers and in the reference code's loop."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import wait
from itertools import product
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import _madlab
from archlab import architecture
from archlab.jobs.local import LocalExecutor
from archlab.mad.learner import Examples, Learner
from archlab.mad.programs import Eager
from archlab.mad.recipe import Recipe
from archlab.mad.trial import Trial
from archlab.tasks import IGNORE, sample, setting
from archlab.training.optimiser import make_optimizer

DIM, BATCH = 128, 128
GRID = list(product((1e-3, 5e-4, 1e-4), (0.0, 0.1)))
PAIRS = {"mh-attention": "mh-attention", "hyena": "hyena", "mh-hyena(heads=8)": "mh-hyena"}
TOLERANCE = 1e-4
"""Of the losses of two trainings with equal weights and data, relative: float32, different order of operations."""


def base(steps: int) -> object:
    return setting("in-context-recall", vocab_size=16, length=128, num_train_examples=steps * BATCH)


def stack(mixer: str) -> list[str]:
    return [mixer, "swiglu", mixer, "swiglu"]


def trials(mixer: str, steps: int) -> list[Trial]:
    """The six trainings; they never stop early and are hardly evaluated, for the reference is not."""
    recipe = Recipe(steps=steps, batch_size=BATCH, evaluations=1, num_evaluation=1, stop_accuracy=2.0)
    value = architecture(" ".join(stack(mixer)))
    return [
        Trial(architecture=value, setting=base(steps), recipe=recipe, dim=DIM, learning_rate=lr, weight_decay=wd, seed=0)
        for lr, wd in GRID
    ]


def our_seconds(executor: LocalExecutor, mixer: str, steps: int) -> float:
    """Wall time of the whole grid on workers that have started, with its data."""
    started = time.perf_counter()
    futures = [executor.submit([trial], lambda *_: None)[0] for trial in trials(mixer, steps)]
    wait(futures)
    for future in futures:
        future.result()
    return time.perf_counter() - started


def reference_model(layer: str) -> nn.Module:
    torch.manual_seed(0)
    return _madlab.language_model(stack(layer), dim=DIM, max_length=128, vocab_size=16)


def reference_seconds(layer: str, steps: int) -> float:
    """Wall time of one training of the reference code's loop: its loader, step and metrics, and nothing around them."""
    inputs, targets = map(torch.from_numpy, sample(base(steps), "train", steps * BATCH, seed=0))
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=BATCH, shuffle=True)
    model = reference_model(layer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.1)
    criterion = nn.CrossEntropyLoss(ignore_index=IGNORE)
    started = time.perf_counter()
    for ids, wanted in loader:
        logits = model(ids)
        loss = criterion(logits.view(-1, logits.size(-1)), wanted.view(-1))
        reference_metrics(logits.detach(), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def reference_metrics(logits: Tensor, wanted: Tensor) -> tuple[float, float]:
    """Macro accuracy and perplexity of a batch, which its wrapper logs at every step."""
    answered = wanted.view(-1) != IGNORE
    flat, labels = logits.view(-1, logits.shape[-1]), wanted.view(-1)
    predicted = flat.argmax(-1)
    classes = flat.shape[-1]
    hits = torch.bincount(labels[answered & (predicted == labels)], minlength=classes)
    present = torch.bincount(labels[answered], minlength=classes)
    perplexity = F.nll_loss(flat.softmax(-1)[answered].log(), labels[answered]).exp()
    return float((hits / present.clamp(min=1)).mean()), float(perplexity)


def speed(mixers: list[str], steps: int, rounds: int, workers: int) -> Iterator[Mapping[str, str | float]]:
    """Examples a second of both over the grid, measured in turns."""
    with LocalExecutor(workers) as executor:
        wait([executor.submit([trial], lambda *_: None)[0] for trial in trials("mlp", 1)])  # workers start, and load PyTorch
        for mixer in mixers:
            pairs = [(our_seconds(executor, mixer, steps), reference_seconds(PAIRS[mixer], steps)) for _ in range(rounds)]
            ours, reference = (median(column) for column in zip(*pairs, strict=True))
            yield {
                "mixer": mixer,
                "ours, examples/s": round(len(GRID) * steps * BATCH / ours, 1),
                "reference, examples/s": round(steps * BATCH / reference, 1),
                "times faster": round(len(GRID) * reference / ours, 2),
                "least": round(min(len(GRID) * theirs / mine for mine, theirs in pairs), 2),
                "largest difference of losses": f"{largest_difference(mixer, 10):.1e} (of {TOLERANCE:g} allowed)",
            }


def largest_difference(mixer: str, steps: int) -> float:
    """Relative, between the losses of both from the same weights on the same batches.

    Raises:
        AssertionError: it is above the tolerance.
    """
    reference = reference_model(PAIRS[mixer])
    ours = architecture(" ".join(stack(mixer))).build(vocab_size=16, max_length=128, dim=DIM)
    _madlab.copy_weights(reference, ours)
    recipe = Recipe(beta2=0.999, decay_all=True)
    optimizer = make_optimizer(ours, learning_rate=5e-4, weight_decay=0.1, betas=(recipe.beta1, recipe.beta2))
    theirs = torch.optim.AdamW(reference.parameters(), lr=5e-4, weight_decay=0.1)
    worst = 0.0
    for step in range(steps):
        inputs, targets = map(torch.from_numpy, sample(base(1), "train", 32, seed=step))
        mine = float(Eager([Learner(ours, optimizer, Examples.of(inputs, targets), recipe)]).step([torch.arange(32)]))
        logits = reference(inputs)
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=IGNORE)
        loss.backward()
        theirs.step()
        theirs.zero_grad()
        worst = max(worst, abs(mine / float(loss.detach()) - 1))
    assert worst <= TOLERANCE, f"{mixer}: losses differ by {worst:.1e}"
    return worst


def answers(rounds: int) -> Iterator[Mapping[str, str | float]]:
    """A step of memorization with a vocabulary of 8192: unembedding and loss where an answer is asked, and everywhere."""
    task = setting("memorization", vocab_size=8192)
    inputs, targets = map(torch.from_numpy, sample(task, "train", BATCH, seed=0))
    recipe = Recipe()
    for mixer in PAIRS:
        value = architecture(" ".join(stack(mixer)))
        models = [value.build(vocab_size=task.vocab_size, max_length=task.length, dim=DIM) for _ in range(2)]
        betas = (recipe.beta1, recipe.beta2)
        optimizers = [make_optimizer(m, learning_rate=5e-4, weight_decay=0.1, betas=betas) for m in models]

        program = Eager([Learner(models[0], optimizers[0], Examples.of(inputs, targets), recipe)])

        def answered(program=program) -> None:
            program.step([torch.arange(BATCH)])

        def everywhere(model=models[1], optimizer=optimizers[1]) -> None:
            logits = model.logits(model.features(inputs))
            F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE).backward()
            optimizer.step()
            optimizer.zero_grad()

        times: dict[object, list[float]] = {answered: [], everywhere: []}
        for turn in range(rounds + 1):
            for step, seconds in times.items():
                started = time.process_time()
                step()
                if turn:
                    seconds.append(time.process_time() - started)
        some, all_of_them = (median(seconds) for seconds in times.values())
        yield {
            "mixer": mixer,
            "answered positions, CPU ms": round(1e3 * some),
            "all positions, CPU ms": round(1e3 * all_of_them),
            "times less": round(all_of_them / some, 2),
        }
