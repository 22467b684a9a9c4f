"""The model, its asymptotic theory and its samplers, as pure functions of numbers and a random generator.

Functions raise ParameterError for a parameter outside the range that their docstring states.

Notation. One name for each quantity; asymptotic and measured quantities never share one.

=================== ===================== ==================================================================
symbol              code                  meaning
=================== ===================== ==================================================================
p                   ``p``                 number of student hidden units, >= 1 or ``math.inf``
p*                  ``p_star``            number of teacher hidden units, >= 1
a                   ``a``                 offset in the denominator of the loss, > 0
Delta               ``noise``             variance of noise on the teacher's pre-activations, >= 0; an option
alpha               ``alpha``             samples per dimension: the load
N                   ``N``                 input dimension
M                   (sample_count)        samples, round(alpha N)
M/N                 ``alpha_realised``    the load of a finite instance
w_k, w*_l           ``students``,         weights, on spheres of radius sqrt(N)
                    ``teachers``
x                   ``inputs``            samples, Gaussian unless told otherwise
lambda_k            ``fields``            student pre-activations w_k.x / sqrt(N)
y                   ``y``                 label (1/p*) sum_l u_l^2, u_l = w*_l.x / sqrt(N)
y^                  ``yhat``              student output (1/p) sum_k lambda_k^2
L                   ``loss`` is L/N       loss (1/2) sum_mu (y - yhat)^2 / (a + y)
H                   (dense_hessian)       Hessian of L at initialisation, pN x pN
D                   (none)                p x p weight of one sample in H
d_perp, d_par       ``d_perp``,           eigenvalues of D: (2/p) (yhat - y)/(a + y), p - 1 times, and
                    ``d_par``             (2/p) (3 yhat - y)/(a + y), once
rho(lambda)         ``rho``               density of the bulk, its mass 1 less the ``atom`` at 0
N(lambda)           ``integrated``        fraction of the eigenvalues below lambda, atom included
g                   ``g``                 Stieltjes transform, ~ 1/z at infinity, < 0 left of the spectrum
gamma               ``gamma``             -2 g/p, in (0, 1) left of the spectrum
T(g)                (none)                (p-1) d_perp/(1 - g d_perp) + d_par/(1 - g d_par)
Sigma(g)            ``self_energy``       (alpha/p) E[T(g)]
z(g)                ``spectral_map``      1/g + Sigma(g), the functional inverse of g(z)
``lambda_-``        ``lambda_minus``      left edge of the bulk, theory
lambda_*            ``lambda_star``       outlier left of the bulk, theory
m^2                 ``overlap_sq``        squared overlap of a unit eigenvector with the teacher, in [0, 1]
(none)              ``overlap_sq_jump``   overlap_sq of the outlier just above alpha_bbp, 0 where continuous
alpha_BBP           ``alpha_bbp``         threshold: an isolated outlier exists above it
alpha_sharp         ``alpha_sharp``       the left edge is smooth below it, sharp above
alpha_0             ``alpha_0``           below it samples of any size show no overlap with the teacher
alpha_BBP(N)        ``alpha_bbp_at_size`` threshold that samples of dimension N show
C, A                ``softness``,         scales at dimension N: (C p N)^(-2/3) of the lowest eigenvalue and
                    ``amplitude``         A N^(-1/3) of the overlap
w                   ``w``, ``distance``   distance from criticality, and w N^(-1/3)
a_tri               ``a_tricritical``     the transition is continuous below it, discontinuous above
psi                 ``psi``               gamma B + F, negative where the outlier branch exists
f, D_f              ``weights``           weight of a sample in the label-only matrix (1/N) sum_mu f(y) x x^T
phi                 ``phi``               f/|inf f|, of infimum -1
lambda_1, lambda_2  ``eigval_min``,       lowest eigenvalues measured on one instance
                    ``eigval_second``
(none)              ``overlap_sq_space``  overlap_sq averaged over the lowest p p* eigenvectors of an instance
(none)              ``edge_sample``,      edge, outlier and squared overlap predicted from the labels
                    ``outlier_sample``,   of one instance, without its matrix
                    ``overlap_sq_sample``
Q, R, T             ``Overlaps``          overlap matrices w.w/N, w.w*/N, w*.w*/N of students and teachers
C                   ``alignment``         [sum R^2/(p p*)] / sqrt(sum Q^2/p^2 sum T^2/p*^2), recovery if > 0.9
mu_k                ``multiplier``        w_k.grad_k L / N, which holds w_k on its sphere along a descent
t                   ``time``              time of the flow; steps times ``learning_rate`` for gradient descent
(none)              ``*_error``           bound on the absolute error of the quantity of that name
=================== ===================== ==================================================================

Averages are written with u = c yhat - y and D = a + (1 - gamma) y + gamma c yhat, for c = 1 (p - 1 times) and
c = 3 (once): A = E[u/D], F = E[(y - 1) u/D], B = E[u^2/D^2], B_y = E[y u^2/D^2].

Everything public is exported here and loaded on first use. Folders: ``numerics`` is independent of the model,
``quadratic`` is the two-layer quadratic network. Two functions have the name of their module and must be
imported from it: ``quadratic.theory.outlier.outlier`` and ``quadratic.sampling.observe.observe``.

Source of the model and its theory: Annesi, Bocchi and Cammarota, arXiv:2510.18435.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bendscape.core.errors import ParameterError, PrecisionWarning
    from bendscape.core.numerics.lanczos import Eigenpairs, lowest_eigenpairs
    from bendscape.core.quadratic.descent.explicit import ExplicitData
    from bendscape.core.quadratic.descent.flow import gradient_descent, gradient_flow
    from bendscape.core.quadratic.descent.landscape import Overlaps
    from bendscape.core.quadratic.descent.measure import Descent, follow
    from bendscape.core.quadratic.descent.revealed import RevealedData
    from bendscape.core.quadratic.descent.spectrum import lowest_pairs, own_labels
    from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size, crossover_size
    from bendscape.core.quadratic.finite_size.edge_law import LowestEigenvalue, lowest_eigenvalue_law
    from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq, mean_overlap_sq_lowest
    from bendscape.core.quadratic.model import (
        EDGE_KINDS,
        TRANSITION_KINDS,
        EdgeKind,
        Model,
        TransitionKind,
        sample_count,
    )
    from bendscape.core.quadratic.sampling.control_variate import Controlled, controlled_mean, label_controls
    from bendscape.core.quadratic.sampling.cost import METHODS, cost_bytes, cost_seconds
    from bendscape.core.quadratic.sampling.dice import Dice, sample_dice
    from bendscape.core.quadratic.sampling.drawn_labels import (
        DrawnLabels,
        drawn_labels_theory,
        sample_drawn_labels,
    )
    from bendscape.core.quadratic.sampling.hessian import Instance, dense_hessian, sample_instance
    from bendscape.core.quadratic.sampling.inputs import INPUT_LAWS, PRECISIONS, DrawnInputs
    from bendscape.core.quadratic.sampling.label_only import SpectralSample, sample_spectral
    from bendscape.core.quadratic.sampling.observe import Observation
    from bendscape.core.quadratic.sampling.products import hessian_operator, hessian_product
    from bendscape.core.quadratic.theory.branch import a_tricritical
    from bendscape.core.quadratic.theory.bulk import Edge, left_edge, self_energy, spectral_map
    from bendscape.core.quadratic.theory.density import (
        Density,
        DensityRule,
        bulk_density,
        density_rule,
        upper_quantile,
    )
    from bendscape.core.quadratic.theory.label_only import (
        SpectralGain,
        spectral_asymptotics,
        spectral_gain,
        spectral_transition,
    )
    from bendscape.core.quadratic.theory.label_weights import SpectralWeights
    from bendscape.core.quadratic.theory.maps import Map, transition_map, transitions_of_models
    from bendscape.core.quadratic.theory.outlier import (
        Alpha0,
        Asymptotics,
        Outlier,
        Transition,
        alpha_0,
        asymptotics,
        transition,
    )
    from bendscape.core.quadratic.theory.points import Points, asymptotics_of_points

__all__ = [
    "EDGE_KINDS",
    "INPUT_LAWS",
    "METHODS",
    "PRECISIONS",
    "TRANSITION_KINDS",
    "Alpha0",
    "Asymptotics",
    "Controlled",
    "Density",
    "DensityRule",
    "Descent",
    "Dice",
    "DrawnInputs",
    "DrawnLabels",
    "Edge",
    "EdgeKind",
    "Eigenpairs",
    "ExplicitData",
    "Instance",
    "LowestEigenvalue",
    "Map",
    "Model",
    "Observation",
    "Outlier",
    "Overlaps",
    "ParameterError",
    "Points",
    "PrecisionWarning",
    "RevealedData",
    "SpectralGain",
    "SpectralSample",
    "SpectralWeights",
    "Transition",
    "TransitionKind",
    "a_tricritical",
    "alpha_0",
    "alpha_bbp_at_size",
    "asymptotics",
    "asymptotics_of_points",
    "bulk_density",
    "controlled_mean",
    "cost_bytes",
    "cost_seconds",
    "crossover_size",
    "dense_hessian",
    "density_rule",
    "drawn_labels_theory",
    "follow",
    "gradient_descent",
    "gradient_flow",
    "hessian_operator",
    "hessian_product",
    "label_controls",
    "left_edge",
    "lowest_eigenpairs",
    "lowest_eigenvalue_law",
    "lowest_pairs",
    "mean_overlap_sq",
    "mean_overlap_sq_lowest",
    "own_labels",
    "sample_count",
    "sample_dice",
    "sample_drawn_labels",
    "sample_instance",
    "sample_spectral",
    "self_energy",
    "spectral_asymptotics",
    "spectral_gain",
    "spectral_map",
    "spectral_transition",
    "transition",
    "transition_map",
    "transitions_of_models",
    "upper_quantile",
]

_FROM = {
    "errors": ("ParameterError", "PrecisionWarning"),
    "numerics.lanczos": ("Eigenpairs", "lowest_eigenpairs"),
    "quadratic.descent.explicit": ("ExplicitData",),
    "quadratic.descent.flow": ("gradient_descent", "gradient_flow"),
    "quadratic.descent.landscape": ("Overlaps",),
    "quadratic.descent.measure": ("Descent", "follow"),
    "quadratic.descent.revealed": ("RevealedData",),
    "quadratic.descent.spectrum": ("lowest_pairs", "own_labels"),
    "quadratic.finite_size.crossover": ("alpha_bbp_at_size", "crossover_size"),
    "quadratic.finite_size.edge_law": ("LowestEigenvalue", "lowest_eigenvalue_law"),
    "quadratic.finite_size.overlap_law": ("mean_overlap_sq", "mean_overlap_sq_lowest"),
    "quadratic.model": (
        "EDGE_KINDS",
        "TRANSITION_KINDS",
        "EdgeKind",
        "Model",
        "TransitionKind",
        "sample_count",
    ),
    "quadratic.sampling.control_variate": ("Controlled", "controlled_mean", "label_controls"),
    "quadratic.sampling.cost": ("METHODS", "cost_bytes", "cost_seconds"),
    "quadratic.sampling.dice": ("Dice", "sample_dice"),
    "quadratic.sampling.drawn_labels": ("DrawnLabels", "drawn_labels_theory", "sample_drawn_labels"),
    "quadratic.sampling.hessian": ("Instance", "dense_hessian", "sample_instance"),
    "quadratic.sampling.inputs": ("INPUT_LAWS", "PRECISIONS", "DrawnInputs"),
    "quadratic.sampling.label_only": ("SpectralSample", "sample_spectral"),
    "quadratic.sampling.observe": ("Observation",),
    "quadratic.sampling.products": ("hessian_operator", "hessian_product"),
    "quadratic.theory.branch": ("a_tricritical",),
    "quadratic.theory.bulk": ("Edge", "left_edge", "self_energy", "spectral_map"),
    "quadratic.theory.density": ("Density", "DensityRule", "bulk_density", "density_rule", "upper_quantile"),
    "quadratic.theory.label_only": (
        "SpectralGain",
        "spectral_asymptotics",
        "spectral_gain",
        "spectral_transition",
    ),
    "quadratic.theory.label_weights": ("SpectralWeights",),
    "quadratic.theory.maps": ("Map", "transition_map", "transitions_of_models"),
    "quadratic.theory.outlier": (
        "Alpha0",
        "Asymptotics",
        "Outlier",
        "Transition",
        "alpha_0",
        "asymptotics",
        "transition",
    ),
    "quadratic.theory.points": ("Points", "asymptotics_of_points"),
}
_MODULE = {name: module for module, names in _FROM.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
