"""Which store a campaign may continue: one with the same kernel, kernel source, entropy and dimensions."""

from __future__ import annotations

import re
from typing import Any

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.file import Campaign
from bendscape.sweep.campaign.kernel import Kernel
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.root import Store, read_store


def identity(campaign: Campaign, kernel: Kernel) -> dict[str, Any]:
    """What must never change within a store: everything that decides the bits of a cell."""
    grid = campaign.to_grid(kernel.axes)
    return {
        "kernel": kernel.name,
        "kernel_version": kernel.version,
        "entropy": campaign.campaign.entropy,
        "around": grid.around,
        "dimensions": list(grid.dims),
        "constants": grid.constants,
        "options": dict(kernel.settings),
        "inner": {
            of.name: {"values": list(of.values), "long_name": of.long_name, "units": of.units}
            for of in kernel.dimensions
        },
    }


def kernel_digests(store: Store | None) -> list[str]:
    """Digests of all kernel sources that computed cells of a store, newest last; empty for installed kernels.

    The store records them. For older stores they are taken from the modules recorded with each run.
    """
    if store is None:
        return []
    if "kernel_source" in store.attributes:
        return list(store.attributes["kernel_source"]["digests"])
    modules = [run.get("kernel_modules", {}) for run in Ledger(connect(store.url)).runs()]
    noted = (digest for of_run in modules for digest in of_run.values())
    return [digest for digest in dict.fromkeys(noted) if re.fullmatch("[0-9a-f]{32}", digest)]


def kernel_source(store: Store | None, kernel: Kernel) -> dict[str, Any]:
    """Root attributes that record the sources of the kernel, this one included; empty if it is installed.

    `accepted` lists the digests accepted with `--accept-kernel-change`.
    """
    known = kernel_digests(store)
    attributes = {} if store is None else store.attributes
    accepted = list((attributes.get("kernel_source") or {}).get("accepted", []))
    if kernel.digest and kernel.digest not in known:
        accepted += [kernel.digest] if known else []
        known = [*known, kernel.digest]
    return {"kernel_source": {"digests": known, "accepted": accepted}} if known else {}


def _differences(store: Store, campaign: Campaign, kernel: Kernel) -> list[str]:
    wanted, layout = identity(campaign, kernel), store.layout.on(kernel.axes)
    # Stores of version 2 have no attributes for what their layout says. An axis or option that the kernel has
    # gained since a store was made has its default value there.
    of_layout = {
        "around": layout.around,
        "dimensions": list(layout.dims),
        "constants": dict(layout.constants),
    }
    defaults = kernel.options().model_dump(mode="json") if kernel.options is not None else {}
    there = {"inner": {}} | store.attributes | of_layout | {"options": defaults | store.options}
    found = _swept(there, wanted)
    return found + [_difference(k, there.get(k), v) for k, v in wanted.items() if there.get(k) != v]


def _difference(name: str, there: Any, here: Any) -> str:
    """What differs, without the entries of a table that agree."""
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return f"{name}: {there!r} there, {here!r} here"
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    return f"{name}: " + ", ".join(f"{k} {there.get(k)!r} there, {here.get(k)!r} here" for k in keys)


def _swept(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Describe axes that are a constant on one side and a dimension on the other, and remove them from
    both."""
    pairs = ((there, here), (here, there))
    names = [name for one, other in pairs for name in one["constants"] if name in other["dimensions"]]
    words = []
    for name in names:
        kinds = [
            f"{of['constants'][name]!r} in every cell" if name in of["constants"] else "a dimension"
            for of in (there, here)
        ]
        words.append(f"{name}: {kinds[0]} there, {kinds[1]} here")
    for of in (there, here):
        of["dimensions"] = [name for name in of["dimensions"] if name not in names]
        of["constants"] = {name: value for name, value in of["constants"].items() if name not in names}
    return words


def _edited(store: Store, kernel: Kernel) -> str:
    # The digests known to the store, if this kernel's is not among them.
    known = kernel_digests(store) if kernel.digest else []
    return " and ".join(known) if known and kernel.digest not in known else ""


def check_identity(
    store: Store, campaign: Campaign, kernel: Kernel, *, accept_kernel_change: bool = False
) -> None:
    """Refuse to mix two campaigns, or two sources of one kernel, in one store.

    Raises
    ------
    ParameterError
        Lists every difference. With both digests, if the kernel's source has changed under the same version
        and `accept_kernel_change` is false.
    """
    if differences := _differences(store, campaign, kernel):
        raise ParameterError(
            "store", store.url, "a store of the same kernel, entropy and dimensions",
            f"{'; '.join(differences)}. Use another store for this campaign (--store), or the next "
            "generation of this one (--new-generation)",
        )  # fmt: skip
    if not accept_kernel_change and (known := _edited(store, kernel)):
        raise ParameterError(
            "store", store.url, f"a store computed with this source of kernel {kernel.name!r}",
            f"digest {known} there, {kernel.digest} here, under the same version {kernel.version}. If the "
            "results differ, raise the version and use another store (--store) or the next generation of "
            "this one (--new-generation); if they are the same bit for bit, pass --accept-kernel-change, "
            "which is recorded",
        )  # fmt: skip


def generation(url: str, campaign: Campaign, kernel: Kernel) -> str:
    """The first of `s.zarr`, `s.generation-2.zarr`, ... that is free or belongs to this campaign."""
    stem, suffix = (url.removesuffix(".zarr"), ".zarr") if url.endswith(".zarr") else (url, "")
    number, candidate = 1, url
    while (store := read_store(candidate)) is not None:
        if not _differences(store, campaign, kernel) and not _edited(store, kernel):
            break
        number += 1
        candidate = f"{stem}.generation-{number}{suffix}"
    return candidate
