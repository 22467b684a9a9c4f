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

    A list of dictionaries becomes an array of tables. Keys whose value is None are left out, since TOML has
    no null.

    Raises
    ------
    ParameterError
        A value that TOML cannot hold, with its key.
    """
    nested = {key: value for key, value in document.items() if isinstance(value, Mapping) or _tables(value)}
    lines = _entries({key: value for key, value in document.items() if key not in nested}, "")
    for name, value in nested.items():
        single = isinstance(value, Mapping)
        for number, table in enumerate([value] if single else value):
            head, path = (
                (f"[{_key(name)}]", f"{name}.") if single else (f"[[{_key(name)}]]", f"{name}[{number}].")
            )
            lines += [*([""] if lines else []), head, *_entries(table, path)]
    return "\n".join(lines) + "\n"


def _tables(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(of, Mapping) for of in value)


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
