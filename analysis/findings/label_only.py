"""Theory of the label-only methods by the names of the `spectral` kernel's weights, each point kept."""

from __future__ import annotations

from functools import lru_cache

from bendscape.core.errors import unwarned
from bendscape.core.quadratic.theory.label_only import spectral_asymptotics, spectral_transition
from bendscape.core.quadratic.theory.outlier import Asymptotics
from bendscape.sweep.kernels.label_only import WEIGHTS


@lru_cache(maxsize=2**16)
def label_only_asymptotics(weights: str, p_star: int, a: float, alpha: float) -> Asymptotics:
    """Edge, outlier and overlap with the weights of that name; see
    :func:`bendscape.core.quadratic.theory.label_only.spectral_asymptotics`."""
    with unwarned():
        return spectral_asymptotics(p_star, WEIGHTS[weights][1](a), alpha)


@lru_cache(maxsize=2**12)
def label_only_threshold(weights: str, p_star: int, a: float) -> float:
    """Threshold with the weights of that name; see
    :func:`bendscape.core.quadratic.theory.label_only.spectral_transition`."""
    with unwarned():
        return spectral_transition(p_star, WEIGHTS[weights][1](a)).alpha_bbp
