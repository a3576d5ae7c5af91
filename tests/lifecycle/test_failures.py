"""Errors, retries, hooks, cancelling, and handlers that take their worker down: each costs an attempt and no more."""

import signal
from time import monotonic

import pytest

from qworker import JobCancelled, JobState, Retry, Task
from tests.lifecycle import application as shop
from tests.lifecycle import handlers
from tests.lifecycle.cluster import SOON, SOONER, Cluster, reached
from tests.lifecycle.node import Node
from tests.waiting import until

QUICKLY = Retry(3, backoff=0.05, jitter=0)


@pytest.fixture(scope="module")
def node(module_cluster: Cluster) -> Node:
    return module_cluster.start("--processes", "2", *SOONER, "--kill-grace", "0.5").await_ready()


# Retries


@pytest.mark.parametrize(
    ("error", "retry", "attempts"),
    [
        ("ValueError", QUICKLY, 3),
        ("ValueError", Retry(3, backoff=0.05, never_on=(LookupError,)), 3),
        ("KeyError", Retry(3, backoff=0.05, never_on=(LookupError,)), 1),
        ("KeyError", Retry(3, backoff=0.05, only_on=("LookupError",)), 3),
        ("ValueError", Retry(3, backoff=0.05, only_on=(LookupError,)), 1),
        ("never", QUICKLY, 1),
    ],
)
def test_the_policy_decides_how_often_a_job_is_tried(node: Node, error: str, retry: Retry, attempts: int) -> None:
    job = handlers.raises.options(retry=retry).enqueue(error)
    after = reached(job)
    assert (after.state, after.attempt, after.crashes) == (JobState.FAILED, attempts, 0)
    assert [past["attempt"] for past in after.errors] == list(range(1, attempts + 1))
    kind = "qworker.errors.PermanentError" if error == "never" else error
    assert {past["type"] for past in after.errors} == {kind}
    assert f"attempt {attempts}" in after.errors[-1]["message"]
    assert "handlers.py" in after.errors[-1]["traceback"]
    retried = node.events("job.retried", job=job.id)
    assert [event["attempt"] for event in retried] == list(range(1, attempts))
    assert [event["attempt"] for event in node.events("job.failed", job=job.id)] == [attempts]


def test_the_kind_of_error_decides_how_long_is_waited(node: Node) -> None:
    slowly = Retry(2, backoff=3600, jitter=0, delays={LookupError: 0.05})
    soon, late = (handlers.raises.options(retry=slowly).enqueue(error) for error in ("KeyError", "ValueError"))
    after = reached(soon)
    assert (after.state, after.attempt, {past["type"] for past in after.errors}) == (JobState.FAILED, 2, {"KeyError"})
    assert [event["retry_in"] for event in node.events("job.retried", job=soon.id)] == [0.05]
    until(lambda: node.events("job.retried", job=late.id))
    assert [event["retry_in"] for event in node.events("job.retried", job=late.id)] == [3600]
    assert late.cancel()


def test_a_function_of_job_and_error_decides_how_long_is_waited(node: Node) -> None:
    after = reached(handlers.impatient.enqueue())
    assert (after.state, after.attempt) == (JobState.FAILED, 3)
    assert [event["retry_in"] for event in node.events("job.retried", job=after.id)] == [0.01, 0.02]
    assert [past["type"] for past in after.errors] == ["ConnectionResetError"] * 3


@pytest.mark.parametrize("kind", handlers.UNDONE)
def test_an_attempt_that_returns_work_undone_has_failed_and_a_hook_likewise(
    node: Node, module_cluster: Cluster, kind: str
) -> None:
    job = reached(handlers.undone.enqueue(kind))
    assert (job.state, job.attempt, len(job.errors)) == (JobState.FAILED, 2, 2)
    assert job.errors[-1]["type"] == "TypeError"
    what = kind.partition(" in ")[0]
    assert job.errors[-1]["message"].startswith(f"the handler returned a {what}")
    assert "which has not been run" in job.errors[-1]["message"]
    until(lambda: any(what in str(event) for event in node.events("job.hook_failed", task="undone")))
    assert module_cluster.notes("ran") == []
    assert "never awaited" not in node.tail(10_000)


def test_pauses_between_attempts_grow(node: Node, module_cluster: Cluster) -> None:
    job = handlers.raises.options(retry=Retry(3, backoff=0.2, factor=3, jitter=0)).enqueue("ValueError")
    reached(job)
    first, second, third = (float(note["at"]) for note in module_cluster.notes("start", job=job.id))
    assert second - first >= 0.2
    assert third - second >= 0.6
    assert [event["retry_in"] for event in node.events("job.retried", job=job.id)] == [0.2, 0.6]


def test_a_handler_may_say_when_to_try_again(node: Node, module_cluster: Cluster) -> None:
    job = shop.later.options(retry=Retry(2, backoff=60)).enqueue(0.2)
    job.wait(SOON)
    first, second = (float(note["at"]) for note in module_cluster.notes("start", job=job.id))
    assert second - first >= 0.2
    assert node.await_event("job.retried", job=job.id)["retry_in"] == 0.2


def test_a_failed_job_can_be_tried_again_by_hand(node: Node) -> None:
    job = shop.flaky.options(retry=1).enqueue(1)
    assert reached(job).state is JobState.FAILED
    assert not node.events("job.retried", job=job.id)
    assert job.retry()
    again = until(lambda: now if len((now := job.refresh()).errors) == 2 and now.finished else None, SOON)
    assert again is not None
    assert again.attempt == 1
    assert job.discard()
    assert job.refresh().state is JobState.DISCARDED


# Hooks


def test_the_hook_is_called_once_when_a_job_has_failed_for_good(node: Node, module_cluster: Cluster) -> None:
    job = shop.hooked.options(retry=QUICKLY).enqueue()
    module_cluster.await_notes("hook", job=job.id)
    idle(module_cluster)
    (hook,) = module_cluster.notes("hook", job=job.id)
    assert (hook["error"], hook["message"]) == ("ValueError", "for_good")
    assert job.refresh().attempt == 3


def test_a_class_task_hears_of_its_failure(node: Node, module_cluster: Cluster) -> None:
    job = shop.app.enqueue(handlers.Order(order_id=7))
    (hook,) = module_cluster.await_notes("hook", order=7)
    assert (hook["job"], hook["error"]) == (str(job.id), "ValueError")


def test_an_error_in_the_hook_is_logged_and_loses_nothing(node: Node, module_cluster: Cluster) -> None:
    job = shop.hooked.enqueue(hook_fails=True)
    event = node.await_event("job.hook_failed", task="hooked", error="RuntimeError: the hook is broken too")
    assert "the hook is broken too" in event["exception"]
    idle(module_cluster)
    assert len(module_cluster.notes("hook", job=job.id)) == 1
    after = job.refresh()
    assert (after.state, after.errors[-1]["message"]) == (JobState.FAILED, "for good")
    assert job.retry()


@pytest.mark.parametrize("task", [shop.hooked_crash, handlers.hooked_poison])
def test_the_hook_hears_of_a_job_that_killed_its_worker(
    node: Node, module_cluster: Cluster, task: Task[[], None]
) -> None:
    job = task.enqueue()
    (hook,) = module_cluster.await_notes("hook", job=job.id)
    assert hook["cause"] == "signal:KILL"
    assert job.refresh().state is JobState.FAILED


# Ends of the process


@pytest.mark.parametrize(
    ("death", "cause"),
    [
        ("os._exit(0)", "exit:0"),
        ("os._exit(1)", "exit:1"),
        ("os._exit(80)", "exit:80"),
        ("segfault", "signal:SEGV"),
        ("SIGKILL", "signal:KILL"),
    ],
)
def test_a_dead_worker_costs_an_attempt(node: Node, module_cluster: Cluster, death: str, cause: str) -> None:
    job = handlers.dies.enqueue(death)
    assert job.wait(SOON) == "second attempt"
    first, second = (float(note["at"]) for note in module_cluster.notes("start", job=job.id))
    assert second - first < 1
    after = job.refresh()
    assert (after.attempt, after.crashes) == (2, 1)
    (error,) = after.errors
    assert (error["type"], error["cause"], error["attempt"]) == ("WorkerDied", cause, 1)
    assert node.await_event("child.died", job=job.id)["cause"] == cause


def test_sys_exit_costs_an_attempt_and_no_worker(node: Node) -> None:
    job = handlers.dies.enqueue("sys.exit")
    assert job.wait(SOON) == "second attempt"
    after = job.refresh()
    assert (after.attempt, after.crashes) == (2, 0)
    assert (after.errors[0]["type"], after.errors[0]["message"]) == ("SystemExit", "3")
    assert not node.events("child.died", job=job.id)


def test_a_handler_that_forks_and_returns_completes_once(node: Node, module_cluster: Cluster) -> None:
    job = shop.forks.enqueue()
    assert job.wait(SOON) is None
    after = job.refresh()
    assert (after.state, after.attempt, after.crashes) == (JobState.COMPLETED, 1, 0)
    (start,) = module_cluster.notes("start", job=job.id)
    parents = {note["pid"] for note in module_cluster.notes("end", job=job.id)}
    assert start["pid"] in parents
    until(lambda: set(map(str, node.members())) & parents <= {start["pid"]}, SOON)
    assert shop.answer.enqueue("next").wait(SOON) == "next"


def test_a_job_that_always_kills_its_worker_fails_and_those_beside_it_are_not_charged(cluster: Cluster) -> None:
    before = [shop.quick.enqueue() for _ in range(10)]
    poison = handlers.poison.enqueue()
    behind = [shop.quick.enqueue() for _ in range(10)]
    node = cluster.start("--processes", "2").await_ready()
    after = reached(poison)
    assert (after.state, after.attempt, after.crashes) == (JobState.FAILED, 3, 3)
    assert [error["cause"] for error in after.errors] == ["signal:SEGV"] * 3
    for job in (*before, *behind):
        beside = reached(job)
        assert (beside.state, beside.attempt, beside.crashes, beside.errors) == (JobState.COMPLETED, 1, 0, ())
        assert len(cluster.notes("start", job=job.id)) == 1
    assert len(cluster.notes("start", job=poison.id)) == 3
    assert node.stop() == 0


# Cancelling


def test_a_waiting_job_is_cancelled_at_once(node: Node, module_cluster: Cluster) -> None:
    job = shop.quick.options(delay=60).enqueue()
    assert job.cancel()
    after = job.refresh()
    assert (after.state, after.attempt) == (JobState.CANCELLED, 0)
    assert not job.cancel()
    with pytest.raises(JobCancelled):
        job.wait(1)


@pytest.mark.parametrize("swallow", [False, True])
def test_a_running_job_is_interrupted_and_if_need_be_killed(
    node: Node, module_cluster: Cluster, *, swallow: bool
) -> None:
    job = handlers.cancellable.enqueue(swallow=swallow)
    module_cluster.await_notes("start", job=job.id)
    assert job.cancel()
    asked_at = monotonic()
    after = reached(job, timeout=1.5 + 0.5 + 2)
    assert (after.state, after.attempt) == (JobState.CANCELLED, 1)
    (interrupted,) = module_cluster.notes("interrupted", job=job.id)
    assert interrupted["by"] == "CancelInterrupt"
    assert float(interrupted["at"]) - asked_at < 1.5
    assert len(module_cluster.notes("start", job=job.id)) == 1
    with pytest.raises(JobCancelled):
        job.wait(1)


def test_a_cancelled_job_that_hears_no_signal_is_killed_though_it_has_no_timeout(
    node: Node, module_cluster: Cluster
) -> None:
    job = shop.gil.options(timeout=None, retry=Retry(3)).enqueue()
    module_cluster.await_notes("start", job=job.id)
    assert job.cancel()
    after = reached(job, timeout=1.5 + 0.5 + 2)
    assert (after.state, after.attempt) == (JobState.CANCELLED, 1)


def test_a_cancelled_job_that_fails_before_it_can_be_interrupted_is_not_tried_again(
    node: Node, module_cluster: Cluster
) -> None:
    job = handlers.cancels_itself.options(retry=Retry(3, backoff=0)).enqueue()
    after = reached(job)
    assert (after.state, after.attempt) == (JobState.CANCELLED, 1)
    assert after.errors[-1]["type"] == "ValueError"
    assert len(module_cluster.notes("start", job=job.id)) == 1


# The process a handler finds itself in


def test_a_handler_that_uses_sigalrm_itself_does_not_take_the_timeout_from_the_next(
    cluster: Cluster,
) -> None:
    node = cluster.start("--processes", "1", "--kill-grace", "0.5").await_ready()
    assert handlers.alarms.enqueue().wait(SOON) == "rang"
    after = reached(handlers.stuck.options(retry=1).enqueue("sleep"))
    assert after.errors[-1]["type"] == "qworker.errors.TimeoutInterrupt"
    assert node.stop() == 0


def test_the_timeout_of_a_job_claimed_together_with_one_that_uses_sigalrm(cluster: Cluster) -> None:
    for _ in range(20):
        shop.noop.enqueue()
    alarms = handlers.alarms.enqueue()
    stuck = handlers.stuck.options(retry=1).enqueue("sleep")
    node = cluster.start("--processes", "1", "--kill-grace", "0.5").await_ready()
    assert alarms.wait(SOON) == "rang"
    assert reached(stuck).errors[-1]["cause"] == "timeout"
    assert node.stop() == 0


def test_a_handler_may_start_a_pool_of_processes(node: Node) -> None:
    assert handlers.pools.options(retry=1).enqueue().wait(SOON) == [1, 2, 3]


def test_a_process_that_a_handler_forks_ends_when_it_is_terminated(node: Node) -> None:
    assert handlers.terminates.options(retry=1).enqueue().wait(SOON) == -signal.SIGTERM


def test_a_subprocess_finds_signals_as_a_shell_would_leave_them(node: Node) -> None:
    found = handlers.dispositions.enqueue().wait(SOON)
    assert int(found["SigBlk"], 16) == 0
    ignored = int(found["SigIgn"], 16)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM, signal.SIGPIPE):
        assert not ignored & 1 << number - 1, number


def idle(cluster: Cluster) -> None:
    """Wait until no job runs or is about to."""
    busy = "SELECT count(*) FROM qworker.job WHERE state IN ('available', 'running', 'scheduled')"
    until(lambda: cluster.value(busy) == 0, SOON)
