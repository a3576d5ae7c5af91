"""What a terminal obeys instead of showing it, and what text can be disguised with."""

import json
import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from qworkerd.log.visible import visible, visible_json

OBEYED = {
    chr(code)
    for code in range(sys.maxunicode + 1)
    if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") and chr(code) not in "\t\n"
}


def test_every_control_and_format_character_is_shown_and_no_other() -> None:
    shown = {chr(code) for code in range(sys.maxunicode + 1) if visible(chr(code)) != chr(code)}
    # Ranges are taken whole, with what the Unicode of this Python has not given away yet.
    assert {unicodedata.category(character) for character in shown - OBEYED} <= {"Cn"}
    assert shown >= OBEYED
    assert visible("\x1b]0;x\x07\u202e") == "\\x1b]0;x\\x07\\u202e"


@given(st.text(st.characters() | st.sampled_from(sorted(OBEYED))))
def test_json_means_the_same_and_holds_none_of_them(text: str) -> None:
    for written in (
        visible_json(json.dumps(text, ensure_ascii=False)),
        visible_json(json.dumps(text), ascii_only=True),
    ):
        assert json.loads(written) == text
        assert not OBEYED & set(written)
    assert visible_json(json.dumps(text, ensure_ascii=False), ascii_only=True).isascii()
