"""The grid: the axes of a campaign, the points that `where` keeps, and the random stream of every cell."""

from __future__ import annotations

import ast
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.maps import transitions_of_models

AROUND = ("alpha_bbp", "alpha_0")
"""Thresholds that alpha can be relative to; alpha_0 by its complex definition."""
SAME_ALPHA = 1e-12
"""Relative distance up to which two computed values of alpha are one."""


def alpha_units(
    around: str | None, p: npt.ArrayLike, p_star: npt.ArrayLike, a: npt.ArrayLike
) -> NDArray[np.float64]:
    """What the alpha axis of each model multiplies to give alpha: 1, or the threshold it is relative to.

    Of models as flat arrays, broadcast against each other. Its last bits depend on which models are asked for
    together: what has been stored is not computed again.

    Raises
    ------
    ParameterError
        A threshold that is not positive.
    """
    columns = np.broadcast_arrays(*(np.atleast_1d(np.asarray(of, dtype=float)) for of in (p, p_star, a)))
    if around is None:
        return np.ones(len(columns[0]))
    found = transitions_of_models(columns[0], columns[1], columns[2], alpha_0=around == "alpha_0")
    units: NDArray[np.float64] = found["alpha_bbp" if around == "alpha_bbp" else "alpha_0_complex_re"]
    for at in np.flatnonzero(~(units > 0))[:1].tolist():
        model = Model(columns[0][at], columns[1][at], columns[2][at])
        raise ParameterError(
            "grid.alpha.around",
            around,
            f"a threshold > 0; it is {units[at]:g} for {model}",
            "give alpha itself",
        )
    return units


_WHERE_NAMES = ("p", "p_star", "a", "alpha", "N")
_WHERE_NODES = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, ast.Lt, ast.LtE,
    ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Mod, ast.FloorDiv,
    ast.Name, ast.Load, ast.Constant,
)  # fmt: skip


def check_where(expression: str) -> str:
    """Accept arithmetic and comparisons of p, p_star, a, alpha, N, and nothing that could run code."""
    if len(expression) > 1000:
        raise ValueError("at most 1000 characters")
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"a condition such as 'p >= p_star' ({error.msg})") from None
    for node in ast.walk(tree):
        if not isinstance(node, _WHERE_NODES):
            raise ValueError(f"numbers, comparisons, + - * / % //, and, or, not; found {type(node).__name__}")
        if isinstance(node, ast.Name) and node.id not in _WHERE_NAMES:
            raise ValueError(f"the names {', '.join(_WHERE_NAMES)}; found {node.id!r}")
        if isinstance(node, ast.Constant) and not isinstance(node.value, int | float):
            raise ValueError(f"numbers; found {node.value!r}")
    return expression


def alpha_dim(around: str | None) -> str:
    """Name of the alpha dimension."""
    return "alpha" if around is None else "alpha_factor"


class Cell(NamedTuple):
    """One point of the grid: `alpha` is absolute, `alpha_axis` its coordinate (the factor, or alpha)."""

    p: int
    p_star: int
    a: float
    alpha: float
    N: int
    seed: int
    alpha_axis: float


def cell_rng(entropy: int, cell: Cell) -> np.random.Generator:
    """The random stream of one cell, from the campaign's entropy and the cell's coordinate values alone.

    The same bits on any worker, in any order, before and after an extension. The spawn key is the
    coordinates as fixed-width little-endian 32-bit words (integers as int64, a and the alpha axis as
    IEEE float64), so that two different cells never share a key.
    """
    packed = struct.pack("<qqddqq", cell.p, cell.p_star, cell.a, cell.alpha_axis, cell.N, cell.seed)
    words = struct.unpack(f"<{len(packed) // 4}I", packed)
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=words))


@dataclass(frozen=True)
class Grid:
    """The axes of a campaign. With `around`, the values of `alpha` are factors of that threshold."""

    p: tuple[int, ...]
    p_star: tuple[int, ...]
    a: tuple[float, ...]
    alpha: tuple[float, ...]
    around: str | None
    N: tuple[int, ...]
    seeds: dict[int, int]
    where: str | None = None

    @property
    def alpha_dim(self) -> str:
        """Name of the alpha dimension."""
        return alpha_dim(self.around)

    def models(self) -> Iterator[tuple[tuple[int, int, int], Model]]:
        """Every (p, p_star, a), with its index on the three axes."""
        for i, p in enumerate(self.p):
            for j, p_star in enumerate(self.p_star):
                for k, a in enumerate(self.a):
                    yield (i, j, k), Model(p, p_star, a)

    @cached_property
    def units(self) -> NDArray[np.float64]:
        """What the alpha axis multiplies to give alpha, shape (p, p_star, a)."""
        p, p_star, a = np.meshgrid(self.p, self.p_star, self.a, indexing="ij")
        return alpha_units(self.around, p.ravel(), p_star.ravel(), a.ravel()).reshape(p.shape)

    @cached_property
    def alpha_values(self) -> NDArray[np.float64]:
        """Absolute alpha, shape (p, p_star, a, alpha)."""
        return self.units[..., np.newaxis] * np.asarray(self.alpha, dtype=np.float64)

    def wanted(self, N: int) -> NDArray[np.bool_]:
        """Which points (p, p_star, a, alpha) of size N the campaign wants; all seeds of a point share it."""
        if N not in self._wanted:
            self._wanted[N] = self._keep(N)
        return self._wanted[N]

    @cached_property
    def _wanted(self) -> dict[int, NDArray[np.bool_]]:
        return {}

    def _keep(self, N: int) -> NDArray[np.bool_]:
        mask = np.ones(self.alpha_values.shape, dtype=bool)
        if self.where is not None:
            code = compile(ast.parse(self.where, mode="eval"), "where", "eval")
            for (i, j, k), model in self.models():
                for m, alpha in enumerate(self.alpha_values[i, j, k]):
                    names = {
                        "p": model.p,
                        "p_star": model.p_star,
                        "a": model.a,
                        "alpha": float(alpha),
                        "N": N,
                    }
                    try:
                        mask[i, j, k, m] = bool(eval(code, {"__builtins__": {}}, names))
                    except ArithmeticError:
                        raise ParameterError(
                            "grid.where", self.where, "a condition defined on every point of the grid"
                        ) from None
        return mask

    def find(self, cell: Mapping[str, float]) -> dict[str, float] | None:
        """The coordinates of a cell by name, that of the alpha axis included; None where it is not wanted."""
        N = int(cell["N"])
        if any(cell[name] not in getattr(self, name) for name in ("p", "p_star", "a", "N")):
            return None
        at = tuple(getattr(self, name).index(cell[name]) for name in ("p", "p_star", "a"))
        # A threshold is not computed to the same last bit for one model and for many.
        there = np.isclose(self.alpha_values[at], cell["alpha"], rtol=SAME_ALPHA, atol=0)
        (slots,) = np.nonzero(there & self.wanted(N)[at])
        if not slots.size or cell["seed"] >= self.seeds[N]:
            return None
        return {**cell, self.alpha_dim: self.alpha[slots[0]]}

    def cell_count(self) -> int:
        """Cells that the campaign wants, over all sizes."""
        return sum(int(self.wanted(size).sum()) * self.seeds[size] for size in self.N)

    def check_samples(self) -> None:
        """Refuse points with fewer than one sample, alpha N < 1."""
        for size in self.N:
            alpha = self.alpha_values[self.wanted(size)]
            if alpha.size and size * float(alpha.min()) < 1:
                raise ParameterError(
                    "grid.alpha",
                    float(alpha.min()),
                    f"alpha N >= 1, so alpha >= {1 / size:.6g} at N = {size}",
                )
