"""What `qworker doctor --explain` prints: the sections of checks.md, which docs/doctor.md contains as well."""

import re
from importlib.resources import files

#: The severity at the beginning of a section, and links, of which a terminal needs the text only.
_SEVERITY, _LINK = re.compile(r"^\*\*(\w+)\*\* "), re.compile(r"\[([^\]]*)\]\([^)]*\)")


def explanation(check: str) -> str:
    """Return what the documentation says about a check, in paragraphs of one line."""
    text = files("qworkerd.doctor").joinpath("checks.md").read_text(encoding="utf-8")
    section = re.search(rf"^##+ {re.escape(check)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    if section is None:
        raise KeyError(check)
    paragraphs = (" ".join(part.split()) for part in section[1].strip().split("\n\n"))
    return "\n\n".join(_LINK.sub(r"\1", _SEVERITY.sub(r"\1: ", part)) for part in paragraphs)
