"""The names of layers: a class is known by the one that archlab registers it under."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def register(name: str) -> Callable[[Any], Any]:
    """Class decorator: give a layer its name, and make it a frozen dataclass where it is none yet."""

    def add(config: Any) -> Any:
        if "__dataclass_params__" not in vars(config):
            dataclass(frozen=True)(config)
        config.name = name
        return config

    return add
