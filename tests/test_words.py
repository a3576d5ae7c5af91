"""The source uses the standard terms of the field: words of the former private language do not come back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CLIENT, WORKERS = "queue", "workers"

#: Regular expressions and what to write instead, for both folders.
BANNED = {
    r"graves?\b": "dead slot, dead worker, dead node",
    r"bur(y|ied|ies|ials?)\b": "mark_dead, recover, delete",
    r"(un)?mourn": "on_child_exit",
    r"coroner": "the cause of a child's exit",
    r"(un)?pardon": "recover, spare by a counted limit",
    r"condemn": "declare dead, mark overdue",
    r"orphanage": "orphans",
    r"unborn": "fork_failed",
    r"lookout": "Poller",
    r"survey": "WatermarkTracker",
    r"errands?\b": "Write",
    r"clerks?\b": "Acknowledger",
    r"sentenced?\b": "kill_reason, kill_at",
    r"leash": "PDEATHSIG, death signal",
    r"floors?\b(?!\()": "watermark",
    r"courier": "SettingsCursor",
    r"\bdesk\b": "JobActions",
    r"\bdoze\b": "sleep, wait",
    r"\bdeaf\b": "notifications_unavailable",
    r"patience": "timeout, deadline",
    r"suspicion": "crash_count",
    r"so many\b": "the number, or the unit",
    r"so long\b": "while, if, or the unit",
    r"so often\b": "the number of times",
    r"(?<!there )\bis no (?!longer)": "is not a ...",
    r"\b(be|is|are) no more\b": "no longer exist, are gone",
    r"is had\b": "is available",
    r"\bwhoever\b": "a process that ..., the session that ...",
    r"\btold\b": "reported, set, by us, known",
    r"\bstrays?\b": "dead nodes, orphans",
    r"in the same breath": "in the same statement",
}


def occurrences(text: str, word: str) -> list[str]:
    """Return the lines that have a banned word, also as a part of a name such as `on_survey` or `ErrandQueue`."""
    pattern = re.compile(r"(?<![a-z])" + word, re.IGNORECASE)
    return [
        f"{number}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", line))
    ]


def files(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".sql"})


@pytest.mark.parametrize(
    ("folder", "word"),
    [(folder, word) for folder in (CLIENT, WORKERS) for word in BANNED],
)
def test_a_word_of_the_private_language_does_not_come_back(folder: str, word: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in files(folder)
        for line in occurrences(path.read_text(encoding="utf-8"), word)
    ]
    assert not found, f"instead of {word!r} write: {BANNED[word]}"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("self._errand_queue = None", r"errands?\b"),
        ("class AckErrand:", r"errands?\b"),
        ("what a Survey finds", "survey"),
        ("a connection is no file", r"(?<!there )\bis no (?!longer)"),
        ("ACK_PATIENCE = 3.0", "patience"),
        ("wait so long as it runs", r"so long\b"),
    ],
)
def test_a_banned_word_is_found_in_prose_and_in_names(line: str, word: str) -> None:
    assert occurrences(line, word)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("the claim is no longer held", r"(?<!there )\bis no (?!longer)"),
        ("there is no lock", r"(?<!there )\bis no (?!longer)"),
        ("(floor(extract(epoch FROM moment) / 86400))", r"floors?\b(?!\()"),
        ("also long queues", r"so long\b"),
    ],
)
def test_a_plain_word_that_looks_like_one_is_allowed(line: str, word: str) -> None:
    assert not occurrences(line, word)


def test_the_folders_are_read() -> None:
    assert len(files(CLIENT)) > 40
    assert len(files(WORKERS)) > 100
