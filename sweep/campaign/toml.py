"""Writes a campaign given as a dictionary as the text of a campaign file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from bendscape.core.errors import ParameterError

ACCEPTED = "a number, a text, a list or a table"


def to_toml(document: Mapping[str, Any]) -> str:
    """TOML of nested dictionaries of numbers, strings and lists, NumPy numbers and arrays included.

    Keys whose value is None are left out, since TOML has no null.

    Raises
    ------
    ParameterError
        A value that TOML cannot hold, with its key.
    """
    plain = {key: value for key, value in document.items() if not isinstance(value, Mapping)}
    lines = _entries(plain, "")
    for name, table in document.items():
        if isinstance(table, Mapping):
            lines += [*([""] if lines else []), f"[{_key(name)}]", *_entries(table, f"{name}.")]
    return "\n".join(lines) + "\n"


def _entries(table: Mapping[str, Any], path: str) -> list[str]:
    given = {key: value for key, value in table.items() if value is not None}
    return [f"{_key(key)} = {_value(value, f'{path}{key}')}" for key, value in given.items()]


def _key(key: object) -> str:
    text = str(key)
    return text if re.fullmatch("[A-Za-z0-9_-]+", text) else _text(text, "key")


def _value(value: Any, path: str) -> str:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, str):
        return _text(str(value), path)
    if isinstance(value, os.PathLike):
        return _text(os.fspath(value), path)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_entries(value, f"{path}.")) + " }"
    if isinstance(value, list | tuple | range):
        return "[" + ", ".join(_value(item, path) for item in value) + "]"
    raise ParameterError(path, value, ACCEPTED)


def _text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ParameterError(path, text, "a text in UTF-8") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
