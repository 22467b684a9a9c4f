"""Cached theory at a point: estimates, figures and the report of one sweep need the same points."""

from __future__ import annotations

from functools import lru_cache

from bendscape.core.quadratic.finite_size import edge_law, overlap_law
from bendscape.core.quadratic.theory import outlier

_POINTS = 2**16

asymptotics = lru_cache(_POINTS)(outlier.asymptotics)
lowest_eigenvalue_law = lru_cache(_POINTS)(edge_law.lowest_eigenvalue_law)
mean_overlap_sq = lru_cache(_POINTS)(overlap_law.mean_overlap_sq)
