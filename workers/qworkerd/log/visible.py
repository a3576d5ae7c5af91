"""Escapes characters that a terminal interprets instead of printing, or that make one string look like another."""

import re
from typing import Final

#: C0 and C1 controls except tab and newline; format characters (Cf), including those that change the direction of text;
#: Unicode's line ends; lone surrogates.
_INTERPRETED: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7e]")


def visible(text: str) -> str:
    r"""Return the text with such characters as escapes: \x1b, \u202e; tabs and newlines are kept."""
    return text if text.isascii() and text.isprintable() else _INTERPRETED.sub(_escaped, text)


def visible_json(text: str, *, ascii_only: bool = False) -> str:
    """Return JSON in which such characters, which can only be in strings, are escaped; the values are the same."""
    if ascii_only:
        return _NOT_ASCII.sub(_json_escaped, text)
    return text if text.isascii() and "\x7f" not in text else _INTERPRETED.sub(_json_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _json_escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
