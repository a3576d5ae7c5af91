"""What completes a term on arguments reads back as the name and value that jobs have, and is read in bounded time."""

import json
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qworker.filters import Filter, parse
from qworker.filters.offers import MAX_CHARACTERS, MAX_OFFERS, offers, read_sample
from qworker.search import MAX_ARGUMENTS, Search
from tests.database import Database

NAMES = st.text('ab1 *.,:"\\<>=-é\n\u202e', min_size=0, max_size=4)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('ab *,:"\\<>=-é\n\u202e', max_size=6)
)  # fmt: skip
ARGUMENTS = st.dictionaries(
    NAMES, st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)),
    max_size=4,
)  # fmt: skip


def anything(_path: tuple[str, ...], _value: Any) -> bool:
    return True


def texts(word: str, *arguments: Any, shown: Callable[[tuple[str, ...], Any], bool] = anything) -> list[str]:
    return [one.text for one in offers(word, read_sample(map(json.dumps, arguments)), shown)]


JOBS = (
    {"user": {"id": 42, "name": "ann lee"}, "n": 1.10, "tags": ["a", "b"], "ok": True, "no": None, "*": [7, {"x": 1}]},
    {"user": {"id": 42, "name": 'say "hi"'}, "n": 2, "user id": ""},
)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("args.", ["args.n:", "args.user.", 'args."user id":', "args.0:", "args.1.", "args.ok:", "args.tags."]),
        ("args.us", ["args.user.", 'args."user id":']), ('-args."user', ['-args."user id":', "-args.user."]),
        ("ARGS.user.", ["ARGS.user.id:", "ARGS.user.name:"]), ("args.user.id:", ["args.user.id:42"]),
        ("args.user.name:", ['args.user.name:"ann lee"', 'args.user.name:"say \\"hi\\""']),
        ("args.user.name:HI", ['args.user.name:"say \\"hi\\""']), ('args.user.name:"ann', ['args.user.name:"ann lee"']),
        ("args.user.name:x,", ['args.user.name:x,"ann lee"', 'args.user.name:x,"say \\"hi\\""']),
        ("args.ok:", ["args.ok:true"]), ('args."user id":', ['args."user id":""']), ("args.0:", ["args.0:7"]),
        ("args.1.", ["args.1.x:"]), ("args.1.x:", ["args.1.x:1"]), ("args.tags.", ["args.tags.0:", "args.tags.1:"]),
        ("args.no:", []), ("args.user:", []), ("args.user.id:>", []), ("args.x.y.", []), ("args", []), ("queue:", []),
        ('args."', ['args."user id":', "args.n:", "args.user.", "args.0:", "args.1.", "args.ok:", "args.tags."]),
        ("args..", []), ("args.user.id:42", []), ('args."a"b', []), ("args." + ".".join("a" * 21), []),
    ],
)  # fmt: skip
def test_names_and_values_are_offered(word: str, expected: list[str]) -> None:
    assert sorted(texts(word, *JOBS)) == sorted(expected)


def test_a_number_is_offered_as_it_is_stored() -> None:
    sample = read_sample(['{"n": 1.10}', '{"n": 12345678901234567890123}', '{"n": 1e400}', "[", "1", "[[[["])
    assert [one.text for one in offers("args.n:", sample, anything)] == [
        "args.n:1.10", "args.n:12345678901234567890123", "args.n:1e400"
    ]  # fmt: skip


def test_the_most_frequent_come_first() -> None:
    jobs = [{"n": number} for number in (3, 1, 2, 1, 3, 1)]
    assert texts("args.n:", *jobs) == ["args.n:1", "args.n:3", "args.n:2"]
    assert len(texts("args.n:", *({"n": number} for number in range(500)))) == MAX_OFFERS


def test_what_may_not_be_shown_or_cannot_be_typed_is_not_offered() -> None:
    jobs = {"secret": "x", "n": "\u202eevil", "m": "a\nb", "k\x1b": 1, "long": "x" * (MAX_CHARACTERS + 1), "ok": "fine"}

    def shown(path: tuple[str, ...], value: Any) -> bool:
        return path != ("secret",) and value != "fine"

    assert sorted(texts("args.", jobs, shown=shown)) == ["args.long:", "args.m:", "args.n:", "args.ok:"]
    for name in ("secret", "n", "m", "long", "ok"):
        assert texts(f"args.{name}:", jobs, shown=shown) == []


def compared(arguments: Any, path: tuple[str, ...]) -> str | None:
    """Return what a filter compares of arguments: the operator #>> of PostgreSQL."""
    for name in path:
        arguments = arguments[int(name)] if isinstance(arguments, list) else arguments.get(name)
    if arguments is None or isinstance(arguments, str):
        return arguments
    return json.dumps(arguments)


@given(ARGUMENTS, st.text('ab."', max_size=3))
@example({"a b": {"": 1}, "*": [{"x": "<1"}], "1": 2}, "")
def test_whatever_is_offered_reads_back_as_a_value_of_the_job(arguments: dict[str, Any], typed: str) -> None:
    """Follow every offer of a name to its end."""
    words, seen = [f"args.{typed}", "args."], 0
    while words and seen < 300:
        for one in offers(words.pop(), read_sample([json.dumps(arguments)]), anything):
            seen += 1
            if one.open:
                words.append(one.text)
                continue
            (term,) = parse(f"queue:mail {one.text}").terms[1:]
            (value,) = term.values
            assert (value.comparison, compared(arguments, term.path)) == ("=", value.operand)
            assert value.operand == one.label


@given(st.text(max_size=30))
@example('args."\\')
def test_nothing_that_is_typed_raises_an_error(text: str) -> None:
    for word in (text, f"args.{text}", f"-args.a:{text}", f'args."{text}'):
        offers(word, [{"a": "b"}, [], 1, None, {"*": {"a": 1}}], anything)


def insert(database: Database, *arguments: Any, queue: str = "mail") -> None:
    conn = database.connect()
    for one in arguments:
        conn.execute("INSERT INTO qworker.job (task, queue, args) VALUES ('t', %s, %s)", [queue, json.dumps(one)])


def test_arguments_are_those_of_the_newest_jobs_that_match_and_are_small(database: Database, search: Search) -> None:
    insert(database, *({"n": number} for number in range(150)))
    insert(database, {"n": "other"}, queue="other")
    insert(database, {"n": "x" * (MAX_ARGUMENTS + 1)}, {"n": "y" * 500_000})

    found = read_sample(search.arguments(parse("queue:mail")))

    assert [one["n"] for one in found] == [str(number) for number in range(149, 51, -1)]
    assert read_sample(search.arguments(parse("queue:other state:available"))) == [{"n": "other"}]
    assert search.arguments(parse("queue:nothing")) == []
    assert len(search.arguments(Filter(), limit=3)) == 1


def test_a_search_for_arguments_ends_with_its_time(database: Database, search: Search) -> None:
    insert(database, {"n": 1})
    database.connect().execute(
        "INSERT INTO qworker.job (id, task, queue) SELECT 1000000 * n, 't', 'other' FROM generate_series(1, 9) AS n"
    )
    assert search.arguments(parse("queue:mail"), time_limit=0) == []
    assert len(search.arguments(parse("queue:mail"), time_limit=5)) == 1


def test_a_statement_that_takes_too_long_ends_it(database: Database, search: Search) -> None:
    insert(database, {"n": 1})
    blocked = database.connect()
    with blocked.transaction():
        blocked.execute("LOCK TABLE qworker.job, qworker.job_history")
        began = monotonic()
        assert search.arguments(parse("queue:mail")) == []
        assert search.arguments(parse("queue:mail state:available")) == []
        assert monotonic() - began < 2.0
    assert len(search.arguments(parse("queue:mail"))) == 1
