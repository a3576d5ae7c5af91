"""Passwords in text: masked wherever they were recognised before, in time that grows with the text and no faster."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qworker.redaction import MAX_LENGTH, redact, shorten

SECRET = "s3cr3t"

# What was masked until masking became linear.
_URL = re.compile(r"(?P<keep>\b\w[\w+.-]{0,30}://[^\s:/@]{0,200}:)(?:[^\s@]{0,4000}+@){1,50}+")
_KEY = re.compile(
    r"""(?P<keep>\b(?:PG|ssl)?passw(?:or)?d\\?['"]?\s{0,9}[=:]\s{0,9})"""
    r"""('(?:[^'\\]|\\.){0,4000}'|"(?:[^"\\]|\\.){0,4000}"|\\(['"]).{0,4000}?\\\3|(?:\\.|[^\s&\\])(?:\\.|[^\s&\\]){0,4000})""",
    re.IGNORECASE,
)

PIECES = st.sampled_from([
    SECRET, SECRET, "postgresql://", "a://", "u:", ":", "@", "h/db", "/", "?", "&", "password=", "PGPASSWORD: ",
    "'password': ", "sslpassword = ", "'", '"', "\\'", '\\"', "\\", " ", "\n", "\t", "%40", "x", "é",
])  # fmt: skip


def before(text: str) -> str:
    return _KEY.sub(r"\g<keep>***", _URL.sub(r"\g<keep>***@", text))


@settings(max_examples=2_000, deadline=None)
@given(st.lists(PIECES, max_size=24).map("".join))
def test_every_secret_that_was_masked_is_masked(text: str) -> None:
    assert redact(text).count(SECRET) <= before(text).count(SECRET)


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://u:{SECRET}@h/db",
        f"postgresql://u@corp:{SECRET}@h/db",
        f"postgresql://u:p@{SECRET}@h/db",
        f"redis://:{SECRET}@h",
        f"host=h password={SECRET}",
        f"host=h password='a {SECRET}' dbname=x",
        f"{{'password': '{SECRET}'}}",
        f"PGPASSWORD={SECRET}",
        f"password={'x' * 10_000}{SECRET}",
    ],
)
def test_a_password_is_masked_where_it_is_recognised(text: str) -> None:
    assert SECRET not in redact(text)
    assert "***" in redact(text)


def seconds(text: str) -> float:
    """Return the processor time of masking, the shortest of three."""
    times = []
    for _ in range(3):
        begun = time.process_time()
        redact(text)
        times.append(time.process_time() - begun)
    return min(times)


@pytest.mark.parametrize("end", ["", "@", " @ ://"])
@pytest.mark.parametrize(
    "piece",
    [
        "a://b:", "a://b:c@", "a://b: ", "://", "@", "a.", "password=", "password='", 'password="', "password=\\'",
        "password='\\", "password= \t", "passw", "\\", "'", "x",
    ],
)  # fmt: skip
def test_masking_takes_time_in_proportion_to_the_text(piece: str, end: str) -> None:
    small, large = (piece * (size // len(piece)) + end for size in (250_000, 1_000_000))
    # Four times the text; sixteen times the time is what one repetition inside another would take.
    assert seconds(large) < 8 * seconds(small) + 0.02


@pytest.mark.parametrize("at", range(0, 40_000, 1_999))
def test_what_is_cut_leaves_no_half_of_a_password(at: int) -> None:
    for secret in (f"postgresql://u:{SECRET * 300}@h/db", f"password={SECRET * 300}", f"password='{SECRET * 300}'"):
        text = f"{'x ' * (at // 2)} {secret} {'y ' * 20_000}"
        found = shorten(text)
        assert len(found) < MAX_LENGTH + 100
        assert SECRET[:4] not in found


def test_a_short_text_is_left_as_it_is_and_a_long_one_keeps_its_end() -> None:
    assert shorten("x" * MAX_LENGTH) == "x" * MAX_LENGTH
    found = shorten("begin" + "x" * 1_000_000 + "the end")
    assert found.startswith("begin")
    assert found.endswith("the end")
    assert "967244 characters omitted" in found
