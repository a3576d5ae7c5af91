"""Masks passwords in text, in linear time for any input."""

import re
from collections.abc import Callable

MASK = "***"
#: Maximum number of characters of one value that are masked and shown.
MAX_LENGTH = 32_768
#: Number of characters read beyond a cut, so that half a password at the cut is still recognized.
_MARGIN = 4_096

# Words that contain an @; only they can contain the password of a URL. Matching is linear: a match starts at the start
# of a word, and possessive quantifiers do not backtrack.
_WORD = re.compile(r"(?<!\S)[^\s@]*+@\S*+")
_AUTHORITY = re.compile(r"://(?<=[\w+.-]://)[^\s:/@]*+:")
# Azure's form of user names: user@server.
_USER_AT_SERVER = re.compile(r"://(?<=[\w+.-]://)[^\s:/]*+:")
# password=..., PGPASSWORD=..., 'password': '...': unquoted, quoted as in libpq, or inside a repr. A quoted value ends
# at the next quote, so that text is read twice at most.
_KEY = re.compile(
    r"""(?P<keep>\b(?:PG|ssl)?passw(?:or)?d\\?['"]?\s{0,9}+[=:]\s{0,9}+)"""
    r"""('(?:[^'\\]|\\.){0,4000}+'|"(?:[^"\\]|\\.){0,4000}+"|\\(['"]).{0,4000}?\\\3|(?:\\.|[^\s&\\])(?:\\.|[^\s&\\])*+)""",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return the text with the passwords of connection strings replaced by ***.

    The password of a URL extends to the last @ of its word, because it may contain an @ that is not encoded. This may
    mask too much, but never too little.
    """
    urls = "://" in text and "@" in text
    if urls:
        text = _WORD.sub(_without_password, text)
    text = _KEY.sub(rf"\g<keep>{MASK}", text)
    return _WORD.sub(_without_any_password, text) if urls else text


def shorten(text: str, mask: Callable[[str], str] = redact, longest: int = MAX_LENGTH) -> str:
    """Mask a text. If it is longer than `longest`, only its beginning and end are masked and returned."""
    if len(text) <= longest:
        return mask(text)
    head, tail = longest // 4, longest - longest // 4
    # A password at the cut lies within the margin, which is masked and then removed.
    first, last = mask(text[: head + _MARGIN]), mask(text[-tail - _MARGIN :])
    omitted = len(text) - head - tail
    return f"{first[: max(0, len(first) - _MARGIN)]} … {omitted} characters omitted … {last[_MARGIN:]}"


def _without_password(word: re.Match[str]) -> str:
    return _masked(word[0], _AUTHORITY.search(word[0]))


def _without_any_password(word: re.Match[str]) -> str:
    return _masked(word[0], _USER_AT_SERVER.search(word[0]))


def _masked(word: str, authority: re.Match[str] | None) -> str:
    if authority is None:
        return word
    last = word.rfind("@")
    return word if last < authority.end() else word[: authority.end()] + MASK + word[last:]
