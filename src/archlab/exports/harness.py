"""A kept model as lm-evaluation-harness sees one; importing this needs the package ``lm_eval``."""

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval import simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor
from typing_extensions import override

from archlab.architectures.decoding import Decoder, without_step_form
from archlab.errors import ArchlabError
from archlab.scaling.models import KeptModel

_BATCH = 16
"""Sequences that are scored at once."""
_MOST_TOKENS = 256
"""Tokens to generate where a task does not say how many."""


class KeptLM(TemplateLM):  # type: ignore[misc,unused-ignore]
    """Scores and continues texts by a kept model, with its own tokenizer, at most at the length that it was trained at."""

    def __init__(self, kept: KeptModel) -> None:
        super().__init__()
        self.kept, self.max_length = kept, kept.trial.run.length
        self.tokens = kept.tokenizer

    @property
    @override
    def eot_token_id(self) -> int:
        return self.tokens.end

    @override
    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        (encoded,) = self.tokens.encode([string.encode(errors="replace")])
        return [int(token) for token in encoded[:-1]]

    @override
    @torch.inference_mode()
    def _loglikelihood_tokens(self, requests: Sequence[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        found: dict[int, tuple[float, bool]] = {}
        order = sorted(range(len(requests)), key=lambda index: -len(requests[index][1]) - len(requests[index][2]))
        for first in range(0, len(order), _BATCH):
            batch = order[first : first + _BATCH]
            rows = [(requests[index][1] + requests[index][2])[-self.max_length - 1 :] for index in batch]
            ids_bl = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(row[:-1] or [self.tokens.end]) for row in rows], batch_first=True
            )
            scores_blv = self.kept.model(ids_bl.to(self.kept.device)).float().log_softmax(-1).cpu()
            for index, row, scores_lv in zip(batch, rows, scores_blv, strict=True):
                wanted = torch.tensor(requests[index][2][-len(row) + 1 :])
                at_lv = scores_lv[len(row) - 1 - len(wanted) : len(row) - 1]
                likelihood = float(at_lv.gather(1, wanted[:, None]).sum())
                found[index] = likelihood, bool((at_lv.argmax(-1) == wanted).all())
        return [found[index] for index in range(len(requests))]

    @override
    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        found = []
        for (text,) in [request.args for request in requests]:
            windows = get_rolling_token_windows(self.tok_encode(text), self.tokens.end, self.max_length, 1)
            parts = [((None, None), *make_disjoint_window(window)) for window in windows]
            found.append(sum(likelihood for likelihood, _ in self._loglikelihood_tokens(parts)))
        return found

    @override
    @torch.inference_mode()
    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        lacking = without_step_form(self.kept.trial.run.architecture.layers, self.kept.model)
        if lacking is not None:
            raise ArchlabError(f"layer {lacking}: has no step form (init_state and step), which generation needs: add it")
        return [self._continuation(*request.args) for request in requests]

    def _continuation(self, context: str, how: dict[str, Any]) -> str:
        """The likeliest text, token by token, up to what ends it."""
        if how.get("do_sample") and how.get("temperature", 1.0) > 0:
            raise ArchlabError(
                "generation: the task asks for random draws, archlab takes the likeliest token: choose another task"
            )
        until = how.get("until") or []
        ends = [until] if isinstance(until, str) else list(until)
        most = int(how.get("max_gen_toks", _MOST_TOKENS))
        room = self.max_length - most
        if room < 1:
            fix = f"a model of length {self.max_length} has no room for so many: choose a task with shorter answers"
            raise ArchlabError(f"generation: the task asks for {most} tokens: {fix}")
        decoder = Decoder(self.kept.model)
        for token in self.tok_encode(context)[-room:] or [self.tokens.end]:
            logits_v = self._step(decoder, token)
        drawn: list[int] = []
        while len(drawn) < most:
            token = int(logits_v[: self.tokens.vocab_size].argmax())
            if token == self.tokens.end:
                break
            drawn.append(token)
            if any(end and end in self.tokens.decode(drawn) for end in ends):
                break
            logits_v = self._step(decoder, token)
        text = self.tokens.decode(drawn)
        for end in filter(None, ends):
            text = text.split(end)[0]
        return text

    def _step(self, decoder: Decoder, token: int) -> Tensor:
        return decoder.step(torch.tensor([token], device=self.kept.device))[0]


def run_harness(
    kept: KeptModel, tasks: Sequence[str], *, include: str | None = None, shots: int | None = None, limit: int | None = None
) -> dict[str, Any]:
    """Evaluate a kept model on tasks of the harness; returns its dictionary, whose ``"results"`` are the metrics by task.

    Args:
        kept: the model.
        tasks: names of the harness, or of the files in ``include``.
        include: a folder with tasks of one's own, YAML files of the harness.
        shots: examples before the question, by default as many as the task says.
        limit: instances of each task, for a try.

    Raises:
        ArchlabError: there is no such task, or one asks for what the model cannot do.
    """
    manager = TaskManager(include_path=include)
    missing = [name for name in tasks if not manager.match_tasks([name])]
    if missing:
        raise ArchlabError(f"task {missing[0]}: lm-evaluation-harness has none of this name: `lm-eval ls tasks` lists them")
    found = simple_evaluate(
        KeptLM(kept),
        tasks=list(tasks),
        task_manager=manager,
        num_fewshot=shots,
        limit=limit,
        log_samples=False,
        bootstrap_iters=1000,
    )
    assert found is not None, "the one process has the results"
    return {name: found[name] for name in ("results", "versions", "n-shot", "n-samples") if name in found}
