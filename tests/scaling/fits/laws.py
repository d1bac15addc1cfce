"""Runs that follow a known law exactly."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Law:
    """``L = E + A / N**alpha + B / D**beta`` and its IsoFLOP study."""

    E: float = 1.69
    A: float = 406.4
    B: float = 410.7
    alpha: float = 0.34
    beta: float = 0.28

    def loss(self, size, tokens):
        return self.E + self.A * size**-self.alpha + self.B * tokens**-self.beta

    @property
    def size_exponent(self):
        return self.beta / (self.alpha + self.beta)

    @property
    def size_factor(self):
        """Optimal size at one parameter-token pair."""
        return (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))

    def study(self, budgets=5, sizes=15, reach=16.0):
        """FLOPs, sizes, tokens and losses of runs within ``reach`` of the optimum of each budget."""
        flops = np.repeat(np.geomspace(1e17, 1e21, budgets), sizes)
        around = np.tile(np.geomspace(1 / reach, reach, sizes), budgets)
        size = self.size_factor * (flops / 6) ** self.size_exponent * around
        tokens = flops / 6 / size
        return flops, size, tokens, self.loss(size, tokens)
