"""Draws numbers as a line of bars."""

import codecs
import sys
from collections.abc import Sequence

_BARS, _ASCII = "▁▂▃▄▅▆▇█", "_.-=+*#@"


def sparkline(counts: Sequence[int]) -> str:
    """Return one character for each number; "·" for 0. The bars are relative to the largest number."""
    encoding = codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name
    bars, nothing = (_BARS, "·") if encoding == "utf-8" else (_ASCII, " ")
    highest = max(counts, default=0)
    return "".join(bars[(count * len(bars) - 1) // highest] if count > 0 else nothing for count in counts)
