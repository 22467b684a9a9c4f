"""The URL of a store: the same on every machine that sees the same file system, and without credentials."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bendscape.core.errors import ParameterError
from bendscape.sweep.texts import clean

ENVIRONMENT = (
    "credentials and endpoint come from the environment: "
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL"
)


def store_url(location: str | os.PathLike[str]) -> str:
    """Absolute URL of a path or URL, the same on every machine that sees the same file system.

    Raises
    ------
    ParameterError
        The location is not a path, a file:// URL or an s3:// URL; or it has credentials, a port or a query,
        which the message does not repeat.
    """
    text = os.fspath(location)
    scheme, separator, rest = text.partition("://")
    accepted = "a path, file:///path or s3://bucket/prefix"
    if not text or clean(text, len(text)) != text:
        raise ParameterError("store", text, f"{accepted}, in UTF-8 and without control characters")
    if not separator:
        try:
            return Path(text).expanduser().absolute().as_uri()
        except RuntimeError:
            remedy = "`~` stands for a home directory, and this user has none"
            raise ParameterError("store", text, accepted, remedy) from None
    if scheme not in ("file", "s3"):
        raise ParameterError("store", f"{scheme}://...", accepted)
    place = rest.partition("/")[0]
    if scheme == "file" and place:
        raise ParameterError("store", "file://...", accepted, "a file URL names no host: three slashes")
    if scheme == "s3" and (not re.fullmatch(r"[\w.-]+", place, re.ASCII) or re.search("[?#]", rest)):
        raise ParameterError(
            "store", "s3://...", "s3://bucket/prefix and nothing else (the value is not shown)", ENVIRONMENT
        )
    return text.rstrip("/")


def folder_of(url: str) -> Path | None:
    """Folder of a store on a file system; None for an object store."""
    return Path(unquote(urlsplit(url).path)) if url.startswith("file://") else None
