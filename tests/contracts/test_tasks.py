"""Every task keeps the contract, in its base setting and in the settings that its oracle's module asks for."""

from tests.oracles.tasks import SETTINGS

from archlab.tasks import registry, setting
from archlab.testing.tasks import TaskContract

for _task in [*(setting(name) for name in registry()), *SETTINGS]:
    globals()[f"Test[{_task}]"] = type(f"Test[{_task}]", (TaskContract,), {"task": _task, "__module__": __name__})
