"""The language of filters: what it means, what it refuses, and that no value of it becomes SQL."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from qworker.filters import KEYS, MAX_LENGTH, MAX_VALUES, Filter, InvalidFilter, Term, Value, parse
from qworker.filters.conditions import Conditions
from qworker.filters.model import quoted
from qworker.fingerprint import to_hex
from qworker.migrations import migrate
from qworker.scan import ABOVE, BELOW, Scan
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database
from tests.qworker.filtered import ERRORS, FINGERPRINTS, NOW, WORDS, matches, random_rows

ENOUGH = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
EVIL = [
    "'",
    "';",
    "--",
    "$1",
    "%s",
    "%(now)s",
    "%",
    "{schema}",
    "\\",
    "*",
    "ä",
    "\U0001f600",
    "\x1b",
    "\n",
    ",",
    ":",
    "<",
]


def only(text: str) -> Term:
    (term,) = parse(text).terms
    return term


def test_terms_are_separated_by_blanks_and_values_by_commas() -> None:
    assert parse("  queue:mail,default   -tag:test ") == Filter((
        Term("queue", (Value("mail"), Value("default"))),
        Term("tag", (Value("test"),), negated=True),
    ))  # fmt: skip


@pytest.mark.parametrize(("text", "comparison", "operand"), [
    ("task:shop.*", "*", "shop."), ("task:*", "*", ""), ('task:"a b"*', "*", "a b"), ('task:"a*"', "=", "a*"),
    ('message:"say \\"no\\" \\\\ so"', "=", 'say "no" \\ so'), ("error:signal:SEGV", "=", "signal:SEGV"),
    ("age:>1h30m", ">", 5400.0), ("age:<=250ms", "<=", 0.25), ("wait:>2d", ">", 172_800.0),
    ("attempt:>=3", ">=", 3), ("attempt:3", "=", 3), ("prio:<0", "<", 0), ("prio:-5", "=", -5), ("17", "=", 17),
    ("STATE:Failed", "=", "failed"), ("after:2026-01-31T10:00:00+01:00", "=", datetime(2026, 1, 31, 9, tzinfo=UTC)),
    ("args.total:>1e3", ">", Decimal("1e3")), ('args.x:""', "=", ""), ("args.x:a:b", "=", "a:b"),
])  # fmt: skip
def test_a_value_is_read_as_its_key_needs_it(text: str, comparison: str, operand: object) -> None:
    assert only(text).values == (Value(operand, comparison),)  # type: ignore[arg-type]


def test_a_time_without_an_offset_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    local = datetime(2026, 1, 31, 9, 30).astimezone(UTC)
    assert only("before:2026-01-31T09:30").values == (Value(local),)


@pytest.mark.parametrize(("text", "path"), [
    ("args.user.id:1", ("user", "id")), ("args.0.id:1", ("*", "0", "id")), ('args."a.b".c:1', ("a.b", "c")),
    ("args.ids.0:1", ("ids", "0")),
])  # fmt: skip
def test_a_path_leads_into_the_arguments_and_a_number_to_those_passed_by_position(text: str, path: object) -> None:
    assert only(text).path == path


@pytest.mark.parametrize(("text", "position", "message"), [
    ("queue:a stae:failed", 8, 'unknown key "stae"; did you mean \'state\'?'),
    ("zzz:1", 0, 'unknown key "zzz"; expected one of id, state,'),
    ("queue:a failed", 8, 'expected key:value, as in task:shop.send, not "failed"'),
    ("state:faild", 6, 'unknown state "faild"; did you mean \'failed\'?'),
    ("state:failed,nope", 13, 'unknown state "nope"; expected one of scheduled,'),
    ("state:fail*", 6, "* is not possible with state; write state:failed"),
    ("queue:", 6, "expected a value, as in queue:mail,default"), ("queue:a,", 8, "expected a value"),
    ("queue:,a", 6, "expected a value"), ("queue", 5, "expected a colon and a value"), ("-", 1, "expected a term"),
    ("queue:a*b", 7, "* is possible only at the end of a value"), ("queue:>a", 6, "> is not possible with queue"),
    ('queue:"a', 6, "a quote is not closed"), ('queue:"a"b', 9, "separate terms by a blank"),
    ('queue:a"b"', 7, "separate terms by a blank"), ('queue:""', 6, "the value of queue is empty"),
    ("age:1h", 4, "compare age with a duration by < or >, as in age:>1h"), ("age:>90", 4, "90 has no unit; write 90s"),
    ("age:>1h2h", 4, "is not a duration"), ("age:>999999d", 4, "is not a duration of up to a hundred years"),
    ("attempt:x", 8, '"x" is not an integer of 64 bits; write attempt:>3'), ("id:9223372036854775808", 3, "64 bits"),
    ("after:yesterday", 6, '"yesterday" is not a time'), ("after:20260131", 6, "is not a time"),
    ("after:>2026-01-31", 6, "> is not possible with after"), ("args:1", 0, "name a value inside the arguments"),
    ("args.:1", 5, "expected a name in the arguments"), ("args.x:>a", 7, '"a" is not a number'),
    ("fp:12", 3, '"12" is not a fingerprint, which has 16 hexadecimal digits'),
    ("fp:zz*", 3, "is not the beginning of a"),
    ("args.x:>1e999", 7, "is not a number"), ("a" * (MAX_LENGTH + 1), MAX_LENGTH, "must not exceed 2048 characters"),
    ("id:" + "1," * MAX_VALUES + "1", 3 + 2 * MAX_VALUES, "more than 128 values"), ("queue:a\0", 6, "NUL"),
    ("queue:\ud800", 6, "surrogate"), ("args" + ".a" * 21 + ":1", 0, "name a value inside"),
])  # fmt: skip
def test_what_cannot_be_read_is_refused_at_its_position(text: str, position: int, message: str) -> None:
    with pytest.raises(InvalidFilter, match=re.escape(message)) as refused:
        parse(text)
    assert refused.value.position == position


def test_a_caret_points_at_the_error_in_a_line_that_fits() -> None:
    with pytest.raises(InvalidFilter) as refused:
        parse("queue:\x1ba " * 100 + "stae:x")
    line, caret = refused.value.pointer(60).splitlines()
    assert len(line) <= 60
    assert "\x1b" not in line
    assert line[caret.index("^") :] == "stae:x"


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from([*KEYS, ":", " ", '"', ",", "*", ">", "1h", "-", ".", "\\"])).map("".join)
)
@ENOUGH
def test_any_text_is_a_filter_or_refused_inside_of_it(text: str) -> None:
    found: Filter | None = None
    refused = None
    try:
        found = parse(text)
    except InvalidFilter as error:
        refused = error
    assert parse(str(found)) == found if refused is None else 0 <= refused.position <= len(text) and refused.pointer()


def test_each_example_is_a_filter_and_says_its_key() -> None:
    assert all(only(key.example).key == name for name, key in KEYS.items())


def test_the_documentation_lists_each_key_with_examples_that_are_filters() -> None:
    page = (Path(__file__).parents[2] / "docs" / "filters.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|.*\| (`.*`) \|$", page, re.MULTILINE)
    listed = [key.removesuffix(".…") for names, _ in rows for key in re.findall(r"`([^`]+)`", names)]
    assert sorted(listed) == sorted(KEYS)
    assert all(parse(example).terms for _, examples in rows for example in re.findall(r"`([^`]+)`", examples))


@pytest.mark.parametrize(("text", "indexed"), [
    ("state:failed fp:00000000000000ff", ["state", "fp"]), ("fp:00000000000000ff", []),
    ("state:failed fp:0*", ["state"]),
    ("state:failed task:a", ["state"]), ("state:running,failed", ["state"]), ("state:retrying", ["state"]),
    ("state:available queue:a,b", ["state", "queue"]), ("state:available queue:a*", []), ("queue:a", []),
    ("state:available -queue:a", []), ("state:failed,completed", []), ("id:1,2 -id:3", ["id"]), ("-state:failed", []),
    ("state:scheduled,failed -state:retrying", ["state", "state"]),
])  # fmt: skip
def test_a_filter_says_which_of_its_terms_an_index_serves(text: str, indexed: list[str]) -> None:
    found = parse(text)
    assert [term.key for term in found.terms if found.is_indexed(term)] == indexed
    assert set(found.terms) - set(found.unindexed) == {term for term in found.terms if found.is_indexed(term)}


@pytest.fixture(scope="module")
def filled(
    postgres_server: EmbeddedPostgres,
) -> Iterator[tuple[psycopg.Connection[Any], list[dict[str, Any]], dict[int, str]]]:
    database = Database.create(postgres_server, "qworker_filters")
    conn = database.connect()
    migrate(conn)
    random_rows(conn, 600)
    rows = psycopg.Cursor(conn, row_factory=dict_row).execute("SELECT * FROM qworker.jobs").fetchall()
    yield conn, rows, {1: "web1", 2: "web2"}
    database.drop(postgres_server)


def written(values: st.SearchStrategy[str], prefixes: bool = True) -> st.SearchStrategy[str]:
    ends = st.sampled_from(["", "*"]) if prefixes else st.just("")
    return st.builds(lambda text, end: quoted(text) + end, values, ends)


texts = st.sampled_from([*WORDS, *(word[:3] for word in WORDS)])
evil = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8
) | st.sampled_from(EVIL)
durations = st.builds(
    "".join, st.tuples(st.sampled_from(["<", ">", "<=", ">="]), st.sampled_from(["5s", "1m", "1h", "3602s", "30s"]))
)
integers = st.builds(
    "{}{}".format, st.sampled_from(["", "<", ">", "<=", ">="]), st.sampled_from([0, 1, 3, 4, 5, -5, 2**63 - 1])
)
times = st.sampled_from([(NOW - timedelta(seconds=n)).isoformat() for n in (5, 3600, 3601, 90_000)])
paths = st.sampled_from(["user.id", "x", "0", "1.id", "x.1", 'x."-1"', "missing"])


def one(key: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(values, min_size=1, max_size=3).map(",".join)
    return st.builds("{}{}:{}".format, st.sampled_from(["", "-"]), st.just(key), several)


def inside(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return paths.flatmap(lambda path: one(f"args.{path}", values))


terms = st.one_of(
    *(one(key, written(texts | evil)) for key in ("queue", "task", "tag")),
    one("error", written(st.sampled_from([*ERRORS, "Timeout", "timeout", "Val", "b"]) | evil)),
    one("message", written(st.sampled_from(["refused", "CONN", "no", "x"]), prefixes=False)),
    one("node", written(st.sampled_from(["web1", "web", "3", "2"]) | evil)),
    one("cron", written(st.sampled_from(["report", "rep"]))),
    one("state", st.sampled_from(KEYS["state"].choices)), one("by", st.sampled_from(KEYS["by"].choices)),
    *(one(key, durations) for key in ("age", "finished", "wait", "run")),
    *(one(key, integers) for key in ("attempt", "prio")), one("id", st.integers(1, 600).map(str) | integers),
    one("after", times), one("before", times),
    inside(written(texts | st.sampled_from(["42", "4.5", "true", "1", "7"]))), inside(integers),
    inside(st.sampled_from([">4.2", "<=42", "<1e300"])),
    one("fp", st.sampled_from([*map(to_hex, FINGERPRINTS), "00000000*", "f*", "0*", "8000000000000000*"])),
)  # fmt: skip


@given(st.lists(terms, max_size=4).map(" ".join))
@example("state:retrying")
@example("-state:retrying,failed")
@example("-run:>30s")
@example('-message:"refused"')
@settings(ENOUGH, max_examples=600)
def test_the_database_selects_what_the_terms_say(filled: Any, text: str) -> None:
    conn, rows, nodes = filled
    wanted = parse(text)
    assert parse(str(wanted)) == wanted
    expected = sorted((row["id"] for row in rows if matches(wanted, row, nodes)), reverse=True)
    for indexes in (False, True):
        scan = Scan(conn, "qworker", wanted, NOW.timestamp())
        if indexes and scan.indexes:
            scan.read_indexes()
        assert [row.id for row in scan.rows("ids", low=BELOW, high=ABOVE, limit=1000)] == expected


def without_values(term: Term) -> Term:
    kept = term.key in ("state", "by", "after", "before", "fp")
    values = tuple(
        value if kept else Value("x" if isinstance(value.operand, str) else 0, value.comparison)
        for value in term.values
    )
    return Term(term.key, values, term.negated, ("x",) * len(term.path))


@given(st.lists(terms | evil.map(lambda text: f"queue:{quoted(text)}"), max_size=4).map(" ".join))
@ENOUGH
def test_no_value_of_a_filter_becomes_part_of_the_statement(text: str) -> None:
    wanted = parse(text)
    harmless = Filter(tuple(map(without_values, wanted.terms)))
    assert Conditions("qworker").compile(wanted)[0] == Conditions("qworker").compile(harmless)[0]
