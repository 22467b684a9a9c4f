"""`ds.bend` documents itself: the parameters of each method, and a summary in a shell or notebook."""

from __future__ import annotations

import importlib
import inspect

import pytest
import xarray as xr

from bendscape.analysis.accessor import Bend


@pytest.mark.parametrize(
    ("room", "name"),
    [
        *(("estimate", name) for name in ("thresholds", "edge_scaling", "collapse", "drift")),
        ("findings", "shift_map"),
    ],
)
def test_methods_have_the_parameters_of_the_functions_and_their_defaults(room: str, name: str) -> None:
    function = getattr(importlib.import_module(f"bendscape.analysis.{room}.{name}"), name)
    (_, *wanted), (_, *offered) = (
        inspect.signature(each).parameters.values() for each in (function, getattr(Bend, name))
    )
    assert offered == wanted
    assert inspect.signature(getattr(Bend, name)).return_annotation == "xr.Dataset"


def test_its_repr_lists_the_methods_and_the_contents_of_the_dataset() -> None:
    ds = xr.Dataset({"x": (("N", "seed"), [[1.0, 2.0]])}, {"N": [64]}, {"name": "<b>mine</b>"})
    text = repr(ds.bend)
    assert "<b>mine</b>" in text
    assert all(
        part in text for part in ("N 1", "seed 2", "1 variables", ".bend.thresholds(...)", ".bend.plot")
    )
    assert "object at" not in text + repr(ds.bend.plot)
    assert ".bend.plot.overlap(...)" in repr(ds.bend.plot)
    assert "&lt;b&gt;mine" in ds.bend._repr_html_()
    assert "<b>mine" not in ds.bend._repr_html_()
    assert "<table>" in ds.bend.plot._repr_html_()
