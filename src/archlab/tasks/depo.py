"""Depo: the node several steps further along a path that is given step by step."""

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.fields import Count
from archlab.tasks._chunks import draw_in_chunks
from archlab.tasks.contract import IGNORE, Arrays, Task
from archlab.tasks.registry import register


@register("depo")
class Depo(Task):
    """Follow a path for several steps: multi-hop recall, as Depo of Physics of Language Models, part 4.1.

    ``num_nodes`` nodes, drawn from all ids but the last ``max_hops``, form one circle. Its edges are given as pairs in random
    order. Then every question has a number of steps (one of the last ids), a node, and the node so many steps further::

        input    x4 x2 x9 x4 x2 x9 h2 x9 x2 h1 x2
        target    .  .  .  .  .  .  . x2  .  . x9

    One recall answers one step, so a model that answers ``max_hops`` steps at once has done so many recalls in its depth.
    """

    short = "depo"
    order = 14
    suite = "recall"
    summary = "name the node that is several steps further along a path"

    vocab_size: int = 36
    length: int = 56
    num_train_examples: int = 25_600
    num_nodes: Count = 10
    max_hops: Count = 4

    def check(self) -> None:
        if self.num_nodes < 2:
            raise ArchlabError(f"{self.name}: num_nodes={self.num_nodes}: a path needs at least 2")
        if self.vocab_size < self.num_nodes + self.max_hops:
            raise ArchlabError(
                f"{self.name}: vocab_size={self.vocab_size}: too small for num_nodes={self.num_nodes} and "
                f"max_hops={self.max_hops}: give at least {self.num_nodes + self.max_hops}"
            )
        if self.length < 2 * self.num_nodes + 3:
            raise ArchlabError(
                f"{self.name}: length={self.length}: too short for {self.num_nodes} edges and a question: give at least "
                f"{2 * self.num_nodes + 3}"
            )

    @property
    def num_questions(self) -> int:
        """Questions of a sequence: as many as fit."""
        return (self.length - 2 * self.num_nodes) // 3

    @property
    @override
    def input_length(self) -> int:
        return 2 * self.num_nodes + 3 * self.num_questions - 1  # the last answer is only asked

    @property
    def chance(self) -> float:
        return 1 / (self.vocab_size - self.max_hops)

    def describe_tokens(self) -> dict[str, range]:
        names = self.vocab_size - self.max_hops
        return {"x": range(names), "h": range(names, self.vocab_size)}

    def generate(self, rng: np.random.Generator, n: int, *, training: bool) -> Arrays:
        return draw_in_chunks(lambda m: self._draw(rng, m), n, self.input_length)

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        nodes, names = self.num_nodes, self.vocab_size - self.max_hops
        circle = rng.permuted(np.tile(np.arange(names, dtype=np.int32), (n, 1)), axis=1)[:, :nodes]
        shown = rng.permuted(np.tile(np.arange(nodes), (n, 1)), axis=1)
        edges = np.stack([np.take_along_axis(circle, (shown + by) % nodes, axis=1) for by in (0, 1)], axis=2)
        start = rng.integers(nodes, size=(n, self.num_questions))
        hops = rng.integers(1, self.max_hops + 1, size=(n, self.num_questions))
        asked = np.take_along_axis(circle, start, axis=1)
        answers = np.take_along_axis(circle, (start + hops) % nodes, axis=1)
        questions = np.stack([names - 1 + hops, asked, answers], axis=2)
        tokens = np.concatenate([edges.reshape(n, -1), questions.reshape(n, -1)], axis=1).astype(np.int32)
        targets = np.full((n, self.input_length), IGNORE, dtype=np.int32)
        targets[:, 2 * nodes + 1 :: 3] = answers
        return tokens[:, :-1], targets
