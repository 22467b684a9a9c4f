"""One BLAS thread for functions whose products are too short to share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import scipy.linalg  # noqa: F401, so that its BLAS is loaded, and limited too
from threadpoolctl import ThreadpoolController

_Function = TypeVar("_Function", bound=Callable[..., Any])

on_one_thread: Callable[[_Function], _Function] = ThreadpoolController().wrap(limits=1, user_api="blas")
"""Decorator: while the function runs, BLAS has one thread; others would only wait for it."""
