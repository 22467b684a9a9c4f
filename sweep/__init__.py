"""The campaign engine: a file becomes a grid, the grid tiles, tiles tasks, and tasks write Zarr chunks.

`run` (the driver) gives tasks to an executor, and the executor gives them to workers. A worker computes whole
tiles and writes them to the store; only small receipts return to the driver, which appends them to the
ledger. To resume a campaign, the driver plans it again and leaves out the tiles that the ledger lists.

From Python: `Campaign`, `run`, `plan` and `status` do what the commands do, and `kernel` turns a
function into a kernel. Each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bendscape.core.errors import ParameterError
    from bendscape.sweep.campaign.axes import Axes, Axis
    from bendscape.sweep.campaign.file import Campaign
    from bendscape.sweep.campaign.function import kernel
    from bendscape.sweep.campaign.kernel import Dimension, Kernel, Outcome, Reference, Variable
    from bendscape.sweep.commands.calls import plan, run, status
    from bendscape.sweep.engine.run import Summary

__all__ = [
    "Axes",
    "Axis",
    "Campaign",
    "Dimension",
    "Kernel",
    "Outcome",
    "ParameterError",
    "Reference",
    "Summary",
    "Variable",
    "kernel",
    "plan",
    "run",
    "status",
]

_FROM = {
    "Axes": "campaign.axes",
    "Axis": "campaign.axes",
    "Campaign": "campaign.file",
    "Dimension": "campaign.kernel",
    "Kernel": "campaign.kernel",
    "Outcome": "campaign.kernel",
    "Reference": "campaign.kernel",
    "Summary": "engine.run",
    "Variable": "campaign.kernel",
    "kernel": "campaign.function",
    "plan": "commands.calls",
    "run": "commands.calls",
    "status": "commands.calls",
}


def __getattr__(name: str) -> Any:
    if name == "ParameterError":
        return import_module("bendscape.core.errors").ParameterError
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FROM[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
