"""Text from outside (errors, hosts, paths) made printable and of bounded length before it is stored."""

from __future__ import annotations

import re
import socket
import traceback

MESSAGE_CHARACTERS = 1000
TRACEBACK_CHARACTERS = 8000  # the last ones, where the error is
NAME_CHARACTERS = 200  # of an exception's type, a host, a user
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)


def clean(text: object, most: int, *, lines: bool = True, end: bool = False) -> str:
    r"""Text that any file, any terminal and any Unicode encoding accepts.

    Control characters, lone surrogates and bidirectional marks become escapes such as `\x1b`. Tabs stay; line
    ends stay if `lines` is true, otherwise all white space collapses to single spaces. Clean text is returned
    unchanged, so the function is idempotent.

    Parameters
    ----------
    text : object
        An object that is not a `str` is replaced by the name of its type, `<bytes>` for example.
    most : int
        Largest number of characters returned. Longer text keeps its first characters (its last ones with
        `end`) and a note of its original length.
    """
    if not isinstance(text, str):
        return f"<{type(text).__name__}>"
    text = str.__str__(text)  # a subclass may override __str__
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
    """The message of an exception; if `str` of it raises, a placeholder that names the second exception."""
    try:
        return clean(str(error), most)
    except BaseException as another:  # str() of the exception runs foreign code
        return f"<its message cannot be read: {type(another).__name__}>"


def traceback_of(error: BaseException) -> str:
    """The end of the traceback of an exception, where the error is."""
    try:
        # Each part is shortened before joining: a message of megabytes would push out the error's location.
        parts = [clean(part, 2 * MESSAGE_CHARACTERS) for part in traceback.format_exception(error)]
        return clean("".join(parts), TRACEBACK_CHARACTERS, end=True)
    except BaseException as another:  # str() of the exception runs foreign code
        return f"<its traceback cannot be read: {type(another).__name__}>"


def host_name() -> str:
    """The name of this machine."""
    return clean(socket.gethostname(), NAME_CHARACTERS)
