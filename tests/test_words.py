"""The source uses the standard terms of the field: words of the former private language do not come back.

`BANNED` is for all text of the source, `BANNED_IN_NAMES` for identifiers, file names and events: `take` is a word of
English, but had eight meanings as a name.
"""

import io
import re
import tokenize
from collections.abc import Iterator
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
    r"\bheed": "detect, handle",
    r"\bsomebody\b": "another process, another session, a user",
    r"\bfor good\b": "permanently, with no attempt left",
    r"\bto blame\b": "the cause",
    r"\ball the same\b": "nevertheless",
    r"\btells? (whether|which|apart)\b": "return whether, distinguish",
    r"\bof one's own\b": "private, separate",
}

#: Words that no name contains, and what to write instead.
BANNED_IN_NAMES = {
    "place": "seq, index, lane, location, position",
    "look": "poll, read, find",
    "take": "claim, wait, borrow, duration",
    "took": "duration",
    "taken": "claimed, occupied",
    "tell": "report, log, return",
    "told": "reported, set, known",
    "listen": "receive",
    "heed": "detect, handle",
    "bring": "send, load",
    "drawn": "assigned",
    "doubt": "ambiguity",
    "fresh": "new",
    "away": "disconnected, unavailable",
    "patience": "timeout",
    "say": "echo, log, report",
    "said": "message, options",
    "desk": "JobActions",
    "clerk": "Acknowledger",
    "stray": "orphan, dead node",
    "deaf": "notifications_unavailable",
    "spare": "exclude",
    "sparing": "batched_write",
    "spared": "excluded",
    "forget": "reset, discard",
    "wish": "option",
    "nobody": "none",
    "somebody": "another process",
}

#: Names that contain one of these words, because it is the standard term there.
STANDARD_TERMS = {
    "listen": "LISTEN, the statement of SQL",
    "take_key": "a unique key is taken and freed",
    "taken": "a unique key is taken and freed",
    "taken_over": "a unique key is taken and freed",
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


def parts(name: str) -> list[str]:
    """Return the words of a name such as `on_lost_claim` or `SlotTable`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")


def names_in_python(text: str) -> Iterator[str]:
    """Yield the identifiers of a module, and the events that it logs."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.string
        elif token.type == tokenize.STRING and (event := re.fullmatch(r'"([a-z]+)\.([a-z_]+)"', token.string)):
            yield from event.groups()


def names_in_sql(text: str) -> Iterator[str]:
    """Yield the names of statements and the identifiers of a file of SQL, without its comments and strings."""
    yield from re.findall(r"^-- name: (\w+)$", text, re.MULTILINE)
    yield from re.findall(r"[A-Za-z_]\w*", re.sub(r"'[^'\n]*'", "''", re.sub(r"--.*", "", text)))


def names(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8")
    return {path.stem, path.parent.name, *(names_in_sql if path.suffix == ".sql" else names_in_python)(text)}


@pytest.mark.parametrize("folder", [CLIENT, WORKERS])
def test_names_have_one_meaning_each(folder: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}: {BANNED_IN_NAMES[word]}"
        for path in files(folder)
        for name in names(path)
        if name.lower() not in STANDARD_TERMS
        for word in parts(name)
        if word in BANNED_IN_NAMES
    }
    assert not found


def test_no_exception_is_left_over() -> None:
    used = {name.lower() for folder in (CLIENT, WORKERS) for path in files(folder) for name in names(path)}
    assert set(STANDARD_TERMS) <= used


def test_names_are_found_in_python_and_in_sql() -> None:
    python = 'class OnLook:\n    def take_it(self, place=1):\n        log.info("worker.deaf", said="the desk")\n'
    assert {word for name in names_in_python(python) for word in parts(name)} >= {
        "look",
        "take",
        "place",
        "deaf",
        "said",
    }
    assert not {"desk"} & {word for name in names_in_python(python) for word in parts(name)}
    sql = "-- name: look\n-- takes a place\nWITH told AS (SELECT 'deaf' AS place_of) SELECT * FROM told;\n"
    assert {word for name in names_in_sql(sql) for word in parts(name)} >= {"look", "told", "place"}
    assert not {"takes", "deaf"} & set(names_in_sql(sql))


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
