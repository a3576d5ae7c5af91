"""What follows from what a handler raised, and what of it is kept."""

import json
from math import inf, nan
from time import process_time
from typing import Any
from unittest.mock import ANY

import psycopg
import pytest

from qworker import PermanentError, Retry, TransientError
from qworker.context import RunningJob
from qworker.errors import CancelInterrupt, Interrupt, ShutdownInterrupt, Snooze, TimeoutInterrupt
from qworker.retry import MAX_BACKOFF
from qworkerd.config.policy import Policy
from qworkerd.outcomes.decide import MAX_MESSAGE, MAX_NAME, MAX_TRACEBACK, decide, describe
from qworkerd.outcomes.outcome import Failed, Outcome, Released, Retried, Snoozed, Terminated
from tests.attempts import attempt as attempt_of
from tests.database import Database


def judged(
    error: BaseException,
    attempt: int = 1,
    *,
    hook: bool = False,
    sent: type[Interrupt] | None = None,
    timed_out: bool = False,
    **retry: Any,
) -> Outcome:
    policy = Retry(**({"attempts": 3, "backoff": 10.0, "jitter": 0} | retry))
    return decide(error, attempt_of(attempt), Policy(policy, 5.0, policy.attempts, inf), hook=hook, duration=0.25,
                  sent=sent, timed_out=timed_out)  # fmt: skip


def test_an_error_is_retried_as_often_as_the_policy_says() -> None:
    first, second, third = (judged(ValueError("no"), attempt) for attempt in (1, 2, 3))
    assert isinstance(first, Retried)
    assert isinstance(second, Retried)
    assert (first.delay, second.delay) == (10.0, 20.0)
    assert (second.error["type"], second.error["message"], second.error["attempt"]) == ("ValueError", "no", 2)
    assert isinstance(third, Failed)


def test_the_nodes_cap_counts_as_the_policys() -> None:
    outcome = decide(ValueError(), attempt_of(1), Policy(Retry(5), 5.0, 1, inf), hook=False, duration=0)
    assert isinstance(outcome, Failed)


def test_a_function_decides_the_delay_from_the_job_and_the_error() -> None:
    def delays(job: RunningJob, error: BaseException) -> float | None:
        return 60.0 * job.attempt if isinstance(error, ConnectionError) else None

    refused, other = (judged(error, 2, delays=delays) for error in (ConnectionRefusedError("busy"), ValueError("no")))
    assert isinstance(refused, Retried)
    assert isinstance(other, Retried)
    assert (refused.delay, refused.error["type"]) == (120.0, "ConnectionRefusedError")
    assert other.delay == 20.0


def test_what_the_handler_asks_for_comes_before_the_delays() -> None:
    outcome = judged(TransientError(retry_after=7), delays={TransientError: 99.0})
    assert isinstance(outcome, Retried)
    assert outcome.delay == 7.0


@pytest.mark.parametrize("answer", [-1.0, nan, inf, "5", True, LookupError("broken"), SystemExit(1)])
def test_a_function_that_fails_leaves_the_backoff(answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def delays(job: RunningJob, error: BaseException) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    outcome = judged(ValueError("no"), delays=delays)
    assert isinstance(outcome, Retried)
    assert (outcome.delay, outcome.error["type"]) == (10.0, "ValueError")


@pytest.mark.parametrize(
    ("error", "retry", "again"),
    [
        (ValueError(), {}, True),
        (PermanentError(), {}, False),
        (PermanentError(), {"only_on": (PermanentError,)}, False),
        (KeyError(), {"never_on": (LookupError,)}, False),
        (ValueError(), {"never_on": (LookupError,)}, True),
        (KeyError(), {"only_on": (LookupError,)}, True),
        (ValueError(), {"only_on": (LookupError,)}, False),
        (TransientError(), {"only_on": (LookupError,)}, True),
        (SystemExit(1), {}, True),
        (TimeoutInterrupt(), {"only_on": (LookupError,)}, True),
        (TimeoutInterrupt(), {"never_on": (BaseException,)}, True),
        (Interrupt(), {}, True),
    ],
)
def test_the_policy_names_errors_that_end_a_job(error: BaseException, retry: dict[str, Any], *, again: bool) -> None:
    assert isinstance(judged(error, **retry), Retried if again else Failed)


@pytest.mark.parametrize(
    ("asked", "delay"),
    [
        (0, 0.0),
        (2.5, 2.5),
        (-3, 0.0),
        (None, 10.0),
        (inf, 10.0),
        (nan, 10.0),
        ("5", 10.0),
        (1e300, MAX_BACKOFF),
        (10**400, MAX_BACKOFF),
    ],
)
def test_a_handler_may_ask_for_a_pause_and_nonsense_is_passed_over(asked: Any, delay: float) -> None:
    outcome = judged(TransientError(retry_after=asked))
    assert isinstance(outcome, Retried)
    assert outcome.delay == delay


def test_a_handler_may_raise_an_error_of_its_own_kind() -> None:
    class Busy(TransientError):
        def __init__(self) -> None:  # as people write it
            self.status = 503

    assert isinstance(judged(Busy()), Retried)


def test_a_snooze_is_no_failure() -> None:
    assert judged(Snooze(3.0), attempt=99) == Snoozed(3.0)
    assert judged(Snooze(1e300)) == Snoozed(MAX_BACKOFF)
    assert judged(BaseExceptionGroup("tasks", [BaseExceptionGroup("inner", [Snooze(3.0)])])) == Snoozed(3.0)
    assert isinstance(judged(BaseExceptionGroup("tasks", [Snooze(3.0), ValueError()])), Retried)


def test_an_interrupted_job_is_handed_back() -> None:
    assert judged(ShutdownInterrupt(), attempt=99, sent=ShutdownInterrupt) == Released()


def test_a_handler_that_raises_our_interrupt_itself_pays_for_the_attempt() -> None:
    assert isinstance(judged(ShutdownInterrupt(), attempt=1), Retried)
    assert isinstance(judged(ShutdownInterrupt(), attempt=3), Failed)


def test_a_cancelled_job_is_over() -> None:
    outcome = judged(CancelInterrupt())
    assert isinstance(outcome, Terminated)
    assert (outcome.state, outcome.duration, outcome.error["cause"]) == ("cancelled", 0.25, "cancelled")


def test_a_timeout_says_how_long_it_was() -> None:
    outcome = judged(TimeoutInterrupt())
    assert isinstance(outcome, Retried)
    assert (outcome.error["cause"], outcome.error["message"]) == ("timeout", "still running after 5 s")


def wrapped(interrupt: BaseException) -> list[BaseException]:
    """Return what a handler may make of an interrupt."""
    made: list[BaseException] = [BaseExceptionGroup("tasks", [KeyError("a"), BaseExceptionGroup("inner", [interrupt])])]
    for cause in (interrupt, None):
        try:
            try:
                raise interrupt  # noqa: TRY301
            except BaseException:  # noqa: BLE001
                raise PermanentError("no") from cause
        except PermanentError as error:
            made.append(error)
    return made


def test_an_interrupt_of_ours_decides_whatever_was_made_of_it() -> None:
    for error in wrapped(ShutdownInterrupt()):
        assert judged(error, attempt=3, sent=ShutdownInterrupt) == Released()
    for error in wrapped(CancelInterrupt()):
        ended = judged(error, attempt=3, sent=CancelInterrupt)
        assert isinstance(ended, Terminated)
        assert ended.state == "cancelled"
    for error in wrapped(TimeoutInterrupt()):
        again = judged(error, timed_out=True)
        assert isinstance(again, Retried)
        assert (again.error["type"], again.error["cause"]) == ("qworker.errors.TimeoutInterrupt", "timeout")


def test_an_interrupt_that_is_not_ours_decides_nothing_from_inside_of_another_error() -> None:
    for error in wrapped(ShutdownInterrupt()) + wrapped(CancelInterrupt()):
        assert isinstance(judged(error, attempt=3), Failed)


def test_an_error_without_a_trace_of_our_interrupt_follows_from_it_all_the_same() -> None:
    """A handler may keep the exception, and raise another one when it has left the `except` block."""
    assert judged(ValueError(), attempt=3, sent=ShutdownInterrupt, timed_out=True) == Released()
    assert judged(SystemExit(1), attempt=3, sent=ShutdownInterrupt) == Released()
    assert isinstance(judged(ValueError(), attempt=3, sent=CancelInterrupt), Terminated)


def test_a_handler_that_has_dealt_with_its_interrupt_may_fail_all_the_same() -> None:
    assert isinstance(judged(PermanentError(), sent=ShutdownInterrupt), Failed)
    assert isinstance(judged(ValueError(), attempt=3, timed_out=True), Failed)


def test_causes_that_lead_in_a_circle_are_searched_once() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert isinstance(judged(first, attempt=3, timed_out=True), Failed)


@pytest.mark.parametrize("hook", [True, False])
def test_only_a_failure_for_good_calls_the_hook(*, hook: bool) -> None:
    outcome = judged(PermanentError(), hook=hook)
    assert isinstance(outcome, Failed)
    assert outcome.hook is hook
    assert isinstance(judged(ValueError(), hook=hook), Retried)


# What is kept


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


class Quits(Exception):
    def __str__(self) -> str:
        raise SystemExit("out")


class Shy(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__module__", "__qualname__", "__name__"):
            raise KeyboardInterrupt
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=Shy):
    pass


def odd_syntax_error() -> SyntaxError:
    error = SyntaxError("invalid syntax")
    error.text, error.lineno, error.offset = 5, "x", ()  # type: ignore[assignment]
    return error


def nested(depth: int) -> BaseException:
    def fall(left: int) -> None:
        if left:
            fall(left - 1)
        raise ValueError("at the bottom")

    try:
        fall(depth)
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("no"), "ValueError", "no"),
        (psycopg.errors.UniqueViolation("twice"), "psycopg.errors.UniqueViolation", "twice"),
        (Mute(), f"{__name__}.Mute", "(its __str__ raised RuntimeError)"),
        (Quits(), f"{__name__}.Quits", "(its __str__ raised SystemExit)"),
        (Nameless("no"), "Nameless", "no"),
        (odd_syntax_error(), "SyntaxError", ANY),
        (
            type("A", (Exception,), {"__module__": "m\0", "__qualname__": "a\0b\ud800c"})(),
            "m\N{REPLACEMENT CHARACTER}.a\N{REPLACEMENT CHARACTER}b?c",
            "",
        ),
        (type("x" * 1000, (Exception,), {"__module__": "builtins"})(), "x" * MAX_NAME, ""),
        (ValueError("a\0b\ud800c"), "ValueError", "a\N{REPLACEMENT CHARACTER}b?c"),
        (ValueError("x" * 10_000), "ValueError", "x" * MAX_MESSAGE),
        (ExceptionGroup("two", [ValueError("a"), KeyError("b")]), "ExceptionGroup", "two (2 sub-exceptions)"),
        (KeyboardInterrupt(), "KeyboardInterrupt", ""),
    ],
)
def test_what_is_kept_of_an_error_can_be_stored_whatever_it_is(
    database: Database, error: BaseException, kind: str, message: str
) -> None:
    record = describe(error, 4, "timeout")
    assert (record["type"], record["message"], record["attempt"], record["cause"]) == (kind, message, 4, "timeout")
    assert len(record["traceback"]) <= MAX_TRACEBACK
    stored = database.connect().execute("SELECT %s::jsonb", (json.dumps(record),)).fetchall()[0][0]
    assert stored == record


def test_a_traceback_keeps_its_end() -> None:
    text = describe(nested(500), 1)["traceback"]
    assert len(text) <= MAX_TRACEBACK
    assert text.rstrip().endswith("ValueError: at the bottom")


def test_a_class_that_cannot_be_asked_its_name_may_be_retried() -> None:
    assert isinstance(judged(Nameless()), Retried)
    assert isinstance(judged(Nameless(), only_on=(ValueError,)), Failed)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("line\n" * 20_000_000),
        ExceptionGroup("one", [ValueError("line\n" * 20_000_000)]),
        ExceptionGroup("many", [ValueError(str(number)) for number in range(200_000)]),
    ],
    ids=["long", "long in a group", "wide"],
)
def test_what_is_huge_is_cut_before_it_is_made(error: Exception) -> None:
    begun = process_time()
    record = describe(error, 1)
    assert process_time() - begun < 0.5
    assert type(error).__name__ in record["traceback"]
    assert len(record["message"]) <= MAX_MESSAGE


def test_the_time_is_reported_with_its_zone() -> None:
    assert describe(ValueError(), 1)["at"].endswith("+00:00")


def test_what_is_kept_of_an_error_holds_no_password() -> None:
    for padding in ("", "x " * 990, "x " * 20_000):
        kept = describe(RuntimeError(f"{padding}no postgresql://u:hunter2@h/db, password='hunter2 hunter2'"), 1)
        assert "hunter" not in kept["message"] + kept["traceback"]
        assert len(kept["message"]) <= 2_000
        assert len(kept["traceback"]) <= 8_000


def test_a_failure_names_its_group() -> None:
    outcomes = [judged(ValueError(f"no order {number}"), attempt) for number, attempt in ((1, 1), (20, 1), (300, 3))]
    records = [outcome.error for outcome in outcomes if isinstance(outcome, Retried | Failed)]
    assert len(records) == 3
    assert len({record["fingerprint"] for record in records}) == 1
    assert {record["group"]["message"] for record in records} == {"no order <n>"}


def test_a_timeout_is_grouped_by_its_task() -> None:
    first, second = judged(TimeoutInterrupt(), timed_out=True), judged(ValueError("in finally"), timed_out=False)
    assert isinstance(first, Retried)
    assert isinstance(second, Retried)
    assert first.error["group"] == {
        "type": "qworker.errors.TimeoutInterrupt",
        "message": "still running after <n> s",
        "frame": None,
    }
    assert first.error["fingerprint"] != second.error["fingerprint"]


def test_a_cancelled_attempt_belongs_to_no_group() -> None:
    outcome = judged(CancelInterrupt(), sent=CancelInterrupt)
    assert isinstance(outcome, Terminated)
    assert not {"fingerprint", "group"} & outcome.error.keys()
