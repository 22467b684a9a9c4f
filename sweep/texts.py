"""Text from outside (errors, hosts, paths) before it is kept: printable, encodable, of bounded length."""

from __future__ import annotations

import re
import socket
import traceback

MESSAGE_CHARACTERS = 1000
TRACEBACK_CHARACTERS = 8000  # the end of it, where the error is
NAME_CHARACTERS = 200  # of an exception's type, a host, a user
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)


def clean(text: object, most: int, *, lines: bool = True, end: bool = False) -> str:
    r"""Text that any file, terminal and encoding of Unicode takes.

    Control characters, lone surrogates and marks that turn the direction of writing become escapes such as
    `\x1b`; tabs stay, and line ends where `lines` is true. What is clean comes back as
    it is, so cleaning twice is cleaning once.

    Parameters
    ----------
    text : object
        What is no `str` is shown by its type.
    most : int
        Characters kept at most: the first, or the last with `end`, and a note of how many there were.
    """
    if not isinstance(text, str):
        return f"<{type(text).__name__}>"
    text = str.__str__(text)  # of a subclass, which may say something else of itself
    length = len(text)
    if length > most:
        text = text[-most:] if end else text[:most]
    if _UNFIT.search(text):
        text = text.replace("\r\n", "\n")
        text = _UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    if length > most or len(text) > most:
        note = f"[cut: it had {length} characters]"
        room = most - len(note) - 1
        text = f"{note} {text[-room:]}" if end else f"{text[:room]} {note}"
    return text if lines else " ".join(text.split())


def message_of(error: BaseException, most: int = MESSAGE_CHARACTERS) -> str:
    """What an exception says of itself; one that cannot is named by what went wrong then."""
    try:
        return clean(str(error), most)
    except BaseException as another:  # it is the code of whoever raised it
        return f"<its message cannot be had: {type(another).__name__}>"


def traceback_of(error: BaseException) -> str:
    """Its traceback, the end of it; empty where there is none to be had."""
    try:
        # Bounded before it is joined: a message of megabytes would push out where the error is.
        parts = [clean(part, 2 * MESSAGE_CHARACTERS) for part in traceback.format_exception(error)]
        return clean("".join(parts), TRACEBACK_CHARACTERS, end=True)
    except BaseException as another:  # it is the code of whoever raised it
        return f"<its traceback cannot be had: {type(another).__name__}>"


def host_name() -> str:
    """The name of this machine."""
    return clean(socket.gethostname(), NAME_CHARACTERS)
