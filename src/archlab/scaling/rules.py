"""The default rules of a ladder: where its sizes lie, and batch and learning rate of a size. Every one can be overridden.

They join what was measured on bytes of text at the small end with published rules at the large one. None of them is the
paper's, which does not give its own.
"""

import math

CENTRE_PARAMS, CENTRE_FLOPS, CENTRE_EXPONENT = 1.3e4, 2e11, 0.57
"""A Transformer++ of about 13k parameters was best at 2e11 FLOPs (standard library as ascii, length 128); the exponent leads to
190M at 4e18, about 20 tokens a parameter (arXiv 2203.15556)."""
REFERENCE_PARAMS = 108e6
REFERENCE_LEARNING_RATE = 4.7e-3
REFERENCE_BATCH_TOKENS = 2048 * 160
HIGHEST_LEARNING_RATE = 2e-2
"""What was best of 5e-3, 1e-2, 2e-2, 4e-2 at 6k and 15k parameters; the rule would ask for five times as much."""
FEWEST_BATCH_TOKENS = 2048
"""On a CPU a step of fewer tokens takes as long."""


def centre(flops: float) -> float:
    """Parameters around which the sizes of a budget lie."""
    return CENTRE_PARAMS * math.exp(CENTRE_EXPONENT * math.log(flops / CENTRE_FLOPS))


def learning_rate(params: float) -> float:
    """Peak learning rate of a size, to two digits: OLMo's ``4.7e-3 (N / 108M)^(-1/3)``, at most 2e-2."""
    rate = min(HIGHEST_LEARNING_RATE, REFERENCE_LEARNING_RATE * (params / REFERENCE_PARAMS) ** (-1 / 3))
    return float(f"{rate:.2g}")


def batch_size(params: float, length: int) -> int:
    """Sequences of a batch: OLMo's ``2048 x 160 (N / 108M)^(2/3)`` tokens, at least 2048, as the nearest power of 2."""
    tokens = max(FEWEST_BATCH_TOKENS, REFERENCE_BATCH_TOKENS * (params / REFERENCE_PARAMS) ** (2 / 3))
    return 1 << max(0, round(math.log2(tokens / length)))
