"""Masks passwords in text, in time that grows with the text and not faster, whatever somebody has written into it."""

import re
from collections.abc import Callable

MASK = "***"
#: What is masked and shown of one value (characters): a log line holds no more.
MAX_LENGTH = 32_768
#: How far the parts that a cut leaves are read beyond the cut, so that it leaves no half of a password.
_MARGIN = 4_096

# Words that hold an @: only they can hold the password of a URL. Nothing is read twice: a match begins where a word
# begins, and its repetitions give nothing back.
_WORD = re.compile(r"(?<!\S)[^\s@]*+@\S*+")
_AUTHORITY = re.compile(r"://(?<=[\w+.-]://)[^\s:/@]*+:")
# As Azure writes users: user@server.
_USER_AT_SERVER = re.compile(r"://(?<=[\w+.-]://)[^\s:/]*+:")
# password=..., PGPASSWORD=..., 'password': '...': bare, quoted as libpq does, or within somebody's repr of it. Quoted
# values end at the next quote, so that a long text is read twice at the most.
_KEY = re.compile(
    r"""(?P<keep>\b(?:PG|ssl)?passw(?:or)?d\\?['"]?\s{0,9}+[=:]\s{0,9}+)"""
    r"""('(?:[^'\\]|\\.){0,4000}+'|"(?:[^"\\]|\\.){0,4000}+"|\\(['"]).{0,4000}?\\\3|(?:\\.|[^\s&\\])(?:\\.|[^\s&\\])*+)""",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return the text with the passwords of connection strings replaced by ***.

    A password in a URL ends at the last @ of its word, as it may hold one that nobody encoded: too much masked is
    better than too little.
    """
    urls = "://" in text and "@" in text
    if urls:
        text = _WORD.sub(_without_password, text)
    text = _KEY.sub(rf"\g<keep>{MASK}", text)
    return _WORD.sub(_without_any_password, text) if urls else text


def shorten(text: str, mask: Callable[[str], str] = redact, longest: int = MAX_LENGTH) -> str:
    """Mask a text; of one that is longer than `longest` only the beginning and the end are looked at, and returned."""
    if len(text) <= longest:
        return mask(text)
    head, tail = longest // 4, longest - longest // 4
    # A password across the cut stands in the margin, which is taken off after it was masked.
    first, last = mask(text[: head + _MARGIN]), mask(text[-tail - _MARGIN :])
    left_out = len(text) - head - tail
    return f"{first[: max(0, len(first) - _MARGIN)]} … {left_out} characters left out … {last[_MARGIN:]}"


def _without_password(word: re.Match[str]) -> str:
    return _masked(word[0], _AUTHORITY.search(word[0]))


def _without_any_password(word: re.Match[str]) -> str:
    return _masked(word[0], _USER_AT_SERVER.search(word[0]))


def _masked(word: str, authority: re.Match[str] | None) -> str:
    if authority is None:
        return word
    last = word.rfind("@")
    return word if last < authority.end() else word[: authority.end()] + MASK + word[last:]
