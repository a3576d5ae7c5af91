"""One attempt without a node: no slot, no acknowledger, no processes, as helpers for an application's tests run it."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import psycopg
import pytest

from qworker import App, Retry, Task, TransientError, current_job
from qworker.claims import ClaimedJob, Claims
from qworker.context import RunningJob, running
from qworkerd.config.policy import Policies
from qworkerd.config.settings import Settings
from qworkerd.log import jobs
from qworkerd.outcomes.outcome import Committed, Completed, Failed, Outcome, Retried, Session, Snoozed, Terminated
from qworkerd.outcomes.reports import Reporter
from qworkerd.worker.execution import Execution
from qworkerd.worker.interrupts import InterruptGate
from tests.database import Database

TOKEN = 7


class OneConnection:
    """Lends the same connection to every handler."""

    lost: Session | None = None

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn

    def open(self) -> psycopg.Connection[Any]:
        return self.conn

    def open_transaction(self) -> psycopg.Connection[Any]:
        return self.conn

    def finish(
        self, connection: psycopg.Connection[Any], *, commit: bool, before_commit: Callable[[], bool] | None = None
    ) -> Exception | None:
        if commit and (before_commit is None or before_commit()):
            connection.commit()
        else:
            connection.rollback()
        return None


class Bench:
    """Executes attempts in this thread, and keeps what they hand out."""

    def __init__(self, database: Database) -> None:
        self.app = App(database.dsn)
        self.conn = database.connect()
        self.stored: list[Outcome] = []
        self.progress: list[tuple[int, Any]] = []
        self.claims = Claims()
        self.connections = OneConnection(database.connect(autocommit=False))
        self.gate = InterruptGate()
        self.execution: Execution | None = None

    def make_execution(self) -> Execution:
        """Make the execution once the application is complete."""
        return Execution(
            self.app, self.gate, self.connections, Reporter(self.app), complete=self._complete,
            progress=lambda job, text: self.progress.append((job, json.loads(text))), store=self.stored.append,
        )  # fmt: skip

    def _complete(self, job: RunningJob, duration: float, result: str | None) -> bool:
        return self.claims.complete(job.connection, TOKEN, job.id, duration=duration, result=result)

    def run(self, task: Task[..., Any], args: str = "{}", **columns: Any) -> Outcome | None:
        """Execute an attempt of a job of the task that is in no table."""
        facts = {"id": 1, "seq": 1, "priority": 5, "queue": "default", "attempt": 1, "crash_count": 0, "is_hook": False,
                 "enqueued_at": time.time(), "overrides": None, "unknown_task_count": 0}  # fmt: skip
        return self.execute(task, ClaimedJob(**{**facts, "task": task.name, "args": args, **columns}))

    def claim(self) -> ClaimedJob:
        """Claim the next job of the default queue."""
        (row,) = self.claims.claim(
            self.conn, node=1, token=TOKEN, queues=["default"] * 10, priorities=range(10), cursors=[0] * 10, limit=1
        )
        return row

    def execute(self, task: Task[..., Any], row: ClaimedJob) -> Outcome | None:
        """Execute an attempt of a claimed job."""
        self.execution = self.execution or self.make_execution()
        outcome, ended = self.execution.run(task, Policies(Settings()).find(task, row.overrides), row, monotonic())
        assert ended <= monotonic()
        assert running.get() is None, "no job is running in the context of the caller"
        return outcome


@pytest.fixture
def bench(database: Database) -> Iterator[Bench]:
    bench = Bench(database)
    before = signal.signal(signal.SIGALRM, bench.gate.fire)
    yield bench
    bench.gate.disarm()
    signal.signal(signal.SIGALRM, before)
    bench.app.close()


def test_a_handler_gets_its_arguments_and_leaves_a_result(bench: Bench) -> None:
    @bench.app.task(name="add")
    def add(*args: Any, **kwargs: Any) -> Any:
        return [args, kwargs]

    outcome = bench.run(add, '{"*": [1, "a"], "b": {"c": null}}')
    assert isinstance(outcome, Completed)
    assert json.loads(outcome.result or "") == [[1, "a"], {"b": {"c": None}}]
    assert outcome.duration >= 0
    assert bench.stored == [], "only an attempt that raised is logged, and so has to be stored before that"


def test_whatever_a_codec_raises_for_a_result_the_work_is_done(bench: Bench) -> None:
    class Codec:
        def __init__(self, *_: Any) -> None: ...

        def load(self, text: str) -> Any:
            return json.loads(text)

        def dump_result(self, result: Any) -> Any:
            raise KeyError(result)

    task = bench.app.task(name="t", typed=Codec)(lambda: "colour")  # type: ignore[arg-type]
    outcome = bench.run(task)
    assert outcome is None or (isinstance(outcome, Completed) and outcome.result is None)


def test_a_job_that_returns_nothing_at_once_has_no_outcome_to_carry(bench: Bench) -> None:
    @bench.app.task(name="nothing")
    def nothing(seconds: float = 0.0) -> None:
        time.sleep(seconds) if seconds else None

    assert bench.run(nothing) is None
    slow = bench.run(nothing, '{"seconds": 0.002}')
    assert isinstance(slow, Completed)
    assert (slow.result, slow.duration >= 0.002) == (None, True)


def test_the_handler_sees_its_job(bench: Bench) -> None:
    @bench.app.task(name="look", timeout=30, retry=4)
    def look() -> Any:
        current_job.progress(0.5, "half")
        job = current_job
        return [job.id, job.task, job.queue, job.attempt, job.max_attempts, 29 < job.time_left() <= 30]

    outcome = bench.run(look, id=11, queue="mail", attempt=3)
    assert isinstance(outcome, Completed)
    assert json.loads(outcome.result or "") == [11, "look", "mail", 3, 4, True]
    assert bench.progress == [(11, {"fraction": 0.5, "text": "half"})]


@pytest.mark.parametrize(
    ("error", "attempt", "kind"),
    [(ValueError("no"), 1, Retried), (ValueError("no"), 2, Failed), (SystemExit(3), 1, Retried),
     (TransientError("later", retry_after=9), 1, Retried)],
)  # fmt: skip
def test_an_exception_is_retried_until_the_attempts_are_used_up(
    bench: Bench, error: BaseException, attempt: int, kind: type[Outcome]
) -> None:
    @bench.app.task(name="raises", retry=Retry(2))
    def raises() -> None:
        raise error

    outcome = bench.run(raises, attempt=attempt)
    assert type(outcome) is kind
    assert isinstance(outcome, Retried | Failed)
    assert (outcome.error["attempt"], outcome.error["message"]) == (attempt, str(error))
    assert "in raises" in outcome.error["traceback"]
    assert "worker/execution.py" not in outcome.error["traceback"]
    assert bench.stored == [outcome]
    if isinstance(error, TransientError):
        assert isinstance(outcome, Retried)
        assert outcome.delay == 9
    assert bench.execution is not None
    assert not bench.execution.tainted


@pytest.mark.parametrize("event", ["retried", "failed"])
def test_an_outcome_is_stored_before_it_is_logged(bench: Bench, monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    order: list[str] = []
    monkeypatch.setattr(jobs, event, lambda *_, **__: order.append("logged"))
    task = bench.app.task(name="raises", retry=Retry(1 if event == "failed" else 2))(lambda: 1 // 0)
    bench.execution = Execution(
        bench.app, bench.gate, bench.connections, Reporter(bench.app), complete=lambda *_: True,
        progress=lambda *_: None, store=lambda _: order.append("stored"),
    )  # fmt: skip
    bench.run(task)
    assert order == ["stored", "logged"]


def test_a_timeout_interrupts_the_handler_and_taints_the_process(bench: Bench) -> None:
    @bench.app.task(name="sleeps", timeout=0.05, retry=2)
    def sleeps() -> None:
        time.sleep(30)

    begun = monotonic()
    outcome = bench.run(sleeps)
    assert monotonic() - begun < 5
    assert isinstance(outcome, Retried)
    assert (outcome.error["cause"], outcome.error["message"]) == ("timeout", "still running after 0.05 s")
    assert bench.execution is not None
    assert bench.execution.tainted


def test_a_snooze_is_not_an_error(bench: Bench) -> None:
    @bench.app.task(name="waits")
    def waits() -> None:
        current_job.snooze(5)

    assert bench.run(waits) == Snoozed(5.0)


@pytest.mark.parametrize("args", ["{", "[1]", '{"*": 1}', '{"unknown": 1}'])
def test_arguments_that_do_not_fit_fail_the_attempt_and_not_the_worker(bench: Bench, args: str) -> None:
    task = bench.app.task(name="plain", retry=1)(lambda: None)
    assert isinstance(bench.run(task, args), Failed)


def test_a_coroutine_has_done_no_work(bench: Bench) -> None:
    async def handler() -> None: ...

    def returns() -> Any:
        return handler()

    assert isinstance(bench.run(bench.app.task(name="coroutine", retry=1)(returns)), Failed)


# Middleware


def answer() -> int:
    return 42


def test_middleware_runs_in_its_order_within_the_job(bench: Bench) -> None:
    seen: list[Any] = []
    for name in ("outer", "inner"):

        @bench.app.middleware
        def layer(job: RunningJob, call_next: Callable[[], Any], name: str = name) -> Any:
            seen.append((name, job.id, current_job.id))
            result = call_next()
            seen.append(name)
            return f"{name}({result})"

    outcome = bench.run(bench.app.task(name="answer")(answer), id=9)
    assert isinstance(outcome, Completed)
    assert outcome.result == '"outer(inner(42))"'
    assert seen == [("outer", 9, 9), ("inner", 9, 9), "inner", "outer"]


def test_middleware_is_within_the_timeout(bench: Bench) -> None:
    @bench.app.middleware
    def hangs(_: RunningJob, call_next: Callable[[], Any]) -> Any:
        result = call_next()
        time.sleep(30)
        return result

    outcome = bench.run(bench.app.task(name="answer", timeout=0.05, retry=1)(answer))
    assert isinstance(outcome, Failed)
    assert outcome.error["cause"] == "timeout"


@pytest.fixture
def effects(bench: Bench) -> Iterator[Callable[[], int]]:
    """Have a table for the effects of handlers; return their number."""
    bench.conn.execute("CREATE TABLE effect (job bigint)")
    yield lambda: (bench.conn.execute("SELECT count(*) FROM effect").fetchone() or (0,))[0]
    bench.connections.conn.rollback()
    bench.conn.execute("DROP TABLE effect")


def take_effect(fail: bool = False) -> str:
    current_job.connection.execute("INSERT INTO effect VALUES (%s)", [current_job.id])
    if fail:
        raise ValueError("undone")
    return "done"


def test_what_a_handler_does_on_its_connection_is_undone_if_it_raises(bench: Bench, effects: Callable[[], int]) -> None:
    task = bench.app.task(name="effect")(take_effect)
    assert isinstance(bench.run(task, '{"fail": true}'), Retried)
    assert effects() == 0
    assert isinstance(bench.run(task), Completed)
    assert effects() == 1


@pytest.mark.parametrize("where", ["before", "after", "never"])
def test_a_transactional_job_and_its_end_are_one_transaction_whatever_its_middleware_does(
    bench: Bench, effects: Callable[[], int], where: str
) -> None:
    @bench.app.middleware
    def layer(job: RunningJob, call_next: Callable[[], Any]) -> Any:
        if where == "before":
            raise LookupError(where)
        job.connection.execute("INSERT INTO effect VALUES (0)")
        result = call_next()
        if where == "after":
            raise LookupError(where)
        return f"<{result}>"

    task = bench.app.task(name="effect", transactional=True)(take_effect)
    job = task.enqueue()
    outcome = bench.execute(task, bench.claim())
    if where == "never":
        assert outcome == Committed()
        assert (effects(), job.refresh().state, job.refresh().result) == (2, "completed", "<done>")
    else:
        assert isinstance(outcome, Retried)
        assert (effects(), job.refresh().state) == (0, "running")


def test_a_transactional_job_that_was_lost_does_nothing(bench: Bench, effects: Callable[[], int]) -> None:
    task = bench.app.task(name="effect", transactional=True)(take_effect)
    task.enqueue()
    row = bench.claim()
    bench.conn.execute("UPDATE qworker.job SET token = token + 1")
    bench.execute(task, row)
    assert effects() == 0


# Failure hooks


@pytest.mark.parametrize("broken", ["no", "hook", "middleware"])
def test_middleware_runs_around_failure_hooks_and_can_fail_them(bench: Bench, broken: str) -> None:
    seen: list[Any] = []

    @bench.app.middleware
    def layer(job: RunningJob, call_next: Callable[[], Any]) -> Any:
        seen.append(job.id)
        result = call_next()
        if broken == "middleware":
            raise LookupError(broken)
        return result

    @bench.app.task(name="hooked", retry=1)
    def hooked() -> None:
        raise ValueError("for good")

    @hooked.on_failure
    def on_failure(job: Any, error: Any) -> None:
        seen.append((job.id, error.type))
        if broken == "hook":
            raise LookupError(broken)

    job = hooked.enqueue()
    failed = bench.execute(hooked, bench.claim())
    assert isinstance(failed, Failed)
    assert failed.hook
    assert bench.claims.fail(bench.conn, TOKEN, job.id, error=json.dumps(failed.error), hook=True)
    hook = bench.claim()
    assert hook.is_hook
    outcome = bench.execute(hooked, hook)
    assert seen == [job.id, hook.id, (job.id, "ValueError")]
    if broken == "no":
        assert outcome is None or isinstance(outcome, Completed)
    else:
        assert isinstance(outcome, Terminated)
        assert (outcome.state, outcome.error["type"]) == ("discarded", "LookupError")
        assert bench.stored[-1] == outcome
