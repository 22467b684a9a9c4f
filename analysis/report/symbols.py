"""The symbols of the model on a page: alpha_bbp in the program's words is α with the subscript BBP."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

_SYMBOLS = {
    "alpha_bbp": ("α", "BBP"),
    "alpha_c": ("α", "c"),
    "alpha_0": ("α", "0"),
    "alpha": ("α", ""),
    "lambda_minus": ("λ", "−"),
    "lambda_star": ("λ", "*"),
    "lambda_*": ("λ", "*"),
    "chi2": ("χ²", ""),
    "chi^2": ("χ²", ""),
}
"""Name to letter and subscript."""

_POWERS = re.compile(r"\bN\^(?:\(([-\d/]+)\)|(\d+))")
_NAMES = re.compile(r"(?<![\w.])(" + "|".join(re.escape(name) for name in _SYMBOLS) + r")(?![\w])")
"""Longest first; not within a longer name, so alpha_0_tangent stays."""


def in_html(words: str) -> Markup:
    """Text with its symbols as HTML, everything else escaped."""
    text = _NAMES.sub(lambda found: _html(*_SYMBOLS[found[1]]), str(escape(words)))
    return Markup(_POWERS.sub(lambda found: f"N<sup>{_minus(found[1] or found[2])}</sup>", text))


def in_text(words: str) -> str:
    """Text with its symbols where there is no HTML: α_BBP, λ_−."""
    return _NAMES.sub(lambda found: "_".join(filter(None, _SYMBOLS[found[1]])), words)


def thousands(number: int) -> str:
    """A whole number with its thousands separated, as 81,834."""
    return f"{number:,}"


def _html(letter: str, subscript: str) -> str:
    return f"{letter}<sub>{subscript}</sub>" if subscript else letter


def _minus(exponent: str) -> str:
    return exponent.replace("-", "−")
