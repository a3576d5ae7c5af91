"""The fingerprint of an error: a number that is equal for errors with the same cause, by which they are grouped."""

import re
from hashlib import sha256
from typing import Final

#: Maximum length of a message that is normalized, and of the normalized one (characters).
MAX_MESSAGE: Final = 2_000
MAX_NORMALIZED: Final = 200
#: The lower bits of a fingerprint depend on the message only; they are 0 if the message is not part of the key.
MESSAGE_BITS: Final = 24

_STRING, _NUMBER, _URL = "<s>", "<n>", "<url>"

# All classes are explicit: \d and \w would depend on the version of Unicode, and so on that of Python. No alternative
# can match the same text in two ways, so the time is linear.
_LETTER = "A-Za-z0-9_"
_DIGIT = r"0-9\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\uff10-\uff19"
_VARIABLE: Final = re.compile(
    rf"""
      (?P<url> (?<![{_LETTER}]) [A-Za-z][A-Za-z0-9+]{{1,15}}://[^\s'"<>()]+ )
    | (?P<string>
          (?<![{_LETTER}]) ' [^']* ' (?![{_LETTER}])
        | "[^"]*" | `[^`]*` | “[^”]*” | «[^»]*»
        | (?<==) \( [^()]* \)                                           # PostgreSQL: Key (email)=(a@example.com)
        | (?<![{_LETTER}.+-]) [A-Za-z0-9.+_-]{{1,64}} @ [A-Za-z0-9.-]+  # an address
      )
    | (?P<path>
          (?<![{_LETTER}.~)\]}}>]) (?:~|\.\.?)? (?:/[{_LETTER}.@%+,-]+)+ /?
        | (?<![{_LETTER}]) [A-Za-z]:\\[^\s'"]+
      )
    | (?P<number>
          (?<![{_LETTER}]) [0-9A-Fa-f]{{8}}-(?:[0-9A-Fa-f]{{4}}-){{3}}[0-9A-Fa-f]{{12}} (?![{_LETTER}])  # a UUID
        | (?<![{_LETTER}]) 0[xX][0-9A-Fa-f]+
        | (?<![{_LETTER}]) (?=[A-Fa-f]{{0,40}}[0-9]) [0-9A-Fa-f]{{8,}} (?![{_LETTER}])                   # a hash
        | (?: (?<![{_LETTER}.)\]]) - )? [{_DIGIT}]+ (?:[-.,:_/][{_DIGIT}]+)* (?:[eE][+-]?[0-9]+)?
      )
    """,
    re.VERBOSE | re.ASCII,
)
_LIST: Final = re.compile(rf"({_STRING}|{_NUMBER})(?:[,;]? ?\1)+")


def normalize(message: str) -> str:
    """Return a message without what differs from case to case: strings in quotes, numbers, hashes, URLs, folders.

    A list of such values has the form of a single one. The result has at most MAX_NORMALIZED characters; only the
    first MAX_MESSAGE characters of the message are read, so the time is limited.
    """
    line = " ".join(message[:MAX_MESSAGE].split())
    return _LIST.sub(r"\1", _VARIABLE.sub(_replacement, line))[:MAX_NORMALIZED]


def fingerprint(task: str, kind: str, message: str | None = None, frame: str | None = None) -> int:
    """Return the fingerprint of an error as a signed 64-bit integer.

    kind is the name of the exception's class, message the unchanged message, frame the `module:function` where it was
    raised. The upper 40 bits depend on task, kind and frame; the lower ones on the normalized message, so that all
    messages of one place are a range of numbers. The result does not depend on the process, the machine or the version
    of Python. The function `fingerprint` of the schema computes the same for an error without message and frame.
    """
    location = _hash("\x1f".join((task, kind, frame or "")), 5)
    text = normalize(message) if message else ""
    # 0 means that the message is not part of the key.
    part = max(_hash(text, MESSAGE_BITS // 8), 1) if text else 0
    return int.from_bytes(((location << MESSAGE_BITS) | part).to_bytes(8), signed=True)


def without_message(number: int) -> int:
    """Return the fingerprint of the same error with its message left out of the key."""
    return number >> MESSAGE_BITS << MESSAGE_BITS


def to_hex(number: int) -> str:
    """Return a fingerprint as it is displayed: 16 hexadecimal digits."""
    return number.to_bytes(8, signed=True).hex()


def from_hex(text: str) -> int:
    """Return the fingerprint that is displayed as `text`; raises ValueError."""
    if not re.fullmatch("[0-9a-f]{16}", text):
        raise ValueError(f"a fingerprint has 16 hexadecimal digits, not {text!r}")
    return int.from_bytes(bytes.fromhex(text), signed=True)


def _hash(text: str, size: int) -> int:
    return int.from_bytes(sha256(text.encode("utf-8", "replace")).digest()[:size])


def _replacement(found: re.Match[str]) -> str:
    match found.lastgroup:
        case "url":
            return _URL
        case "string":
            return _STRING
        case "path":
            return _VARIABLE.sub(_replacement, re.split(r"[/\\]", found[0].rstrip("/\\"))[-1])
        case _:
            return _NUMBER
