"""Hidden cells: finished cells that the latest campaign file of a store does not name."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.engine.plan import Plan
from bendscape.sweep.engine.wanted import Wanted
from bendscape.sweep.store.ledger import Ledger, campaign_path


class Hidden(NamedTuple):
    """The number of hidden cells and, by revision, the number that each earlier campaign file shows.

    `xr.open_dataset(store, engine="bendscape", revision=number)` opens the store as that file describes it.
    """

    cells: int
    revisions: dict[int, int]

    def line(self, url: str) -> str:
        """One line for people; empty if nothing is hidden."""
        if not self.cells:
            return ""
        named = max(self.revisions, key=lambda revision: (self.revisions[revision], revision), default=None)
        opened = f"xr.open_dataset({url!r}, engine='bendscape', revision={named})"
        how = "" if named is None else f": {opened} shows {self.revisions[named]} of them"
        return (
            f"{self.cells} finished cells of this store are hidden, because the campaign file does not name "
            f"them; they are kept. To see them, name their values in it again{how}"
        )


def hidden_cells(plan: Plan, ledger: Ledger) -> Hidden:
    """Count the cells that are recorded as finished but not wanted by the plan."""
    if not plan.hidden:
        return Hidden(0, {})
    now, revisions, seen = _masks(plan), {}, set()
    for revision in range(ledger.revision, 0, -1):
        document = ledger.read(campaign_path(revision))
        if not document or document["spec_hash"] in seen:
            continue
        seen.add(document["spec_hash"])
        grid = parse_campaign(document["campaign"]).to_grid(plan.grid.axes)
        then = _masks(Plan(plan.layout, grid, plan.kernel, plan.records))
        done = {size: plan.records.sizes[size].done for size in then}
        shown = sum(
            int(np.bitwise_count(done[n] & mask & ~now.get(n, np.uint8(0))).sum()) for n, mask in then.items()
        )
        if shown:
            revisions[revision] = shown
    return Hidden(plan.hidden, revisions)


def _masks(plan: Plan) -> dict[int, NDArray[np.uint8]]:
    # The masks of the wanted cells, by size, in the form of the records.
    masks = {}
    for size in plan.grid.sizes:
        wanted = Wanted.of(plan.layout, plan.grid, plan.kernel, size)
        blocks = [(block.points, block.want) for block in wanted.blocks(plan.records)]
        masks[size] = np.zeros_like(plan.records.sizes[size].done)
        for points, want in blocks:
            masks[size][(*points.T, slice(want.shape[1]))] = want
    return masks
