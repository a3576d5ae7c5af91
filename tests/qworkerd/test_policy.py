"""Which rules apply to a job: its own, its task's, the node's, in this order."""

import json
from math import inf
from typing import Any

import pytest

from qworker import App, Retry, Task
from qworkerd.config.policy import Policies
from qworkerd.config.settings import Settings


def task(**named: Any) -> Task[..., Any]:
    def noop() -> None:
        pass

    return App().task(name="noop", **named)(noop)


@pytest.mark.parametrize("unknown", [True, False])
def test_a_task_that_says_nothing_has_the_nodes_rules(*, unknown: bool) -> None:
    policy = Policies(Settings(timeout=7.0, slow_after=3.0)).find(None if unknown else task(), None)
    assert (policy.timeout, policy.slow_after) == (7.0, 3.0)
    assert (policy.retry, policy.max_attempts) == (Retry(), 3)


def test_what_a_task_says_wins_over_the_node() -> None:
    policy = Policies(Settings()).find(task(timeout=1.5, slow_after=0.5, retry=Retry(9, backoff=1)), None)
    assert (policy.timeout, policy.slow_after, policy.max_attempts) == (1.5, 0.5, 9)
    assert policy.retry == Retry(9, backoff=1)


def test_what_a_job_says_wins_over_its_task_and_is_reported_for_it_alone() -> None:
    policies, limited = Policies(Settings()), task(timeout=1.5, retry=2)
    overrides = json.dumps({"timeout": 60, "retry": Retry(7, never_on=(ValueError,)).to_json()})
    policy = policies.find(limited, overrides)
    assert (policy.timeout, policy.max_attempts, policy.retry.never_on) == (60.0, 7, ("ValueError",))
    assert policies.find(limited, None).timeout == 1.5
    assert policies.find(limited, None).max_attempts == 2


def test_none_means_no_limit() -> None:
    policies = Policies(Settings(timeout=None, slow_after=None))
    assert (policies.find(task(), None).timeout, policies.find(task(), None).slow_after) == (inf, inf)
    assert Policies(Settings()).find(task(timeout=None), None).timeout == inf
    assert Policies(Settings()).find(task(timeout=5), '{"timeout": "none"}').timeout == inf


@pytest.mark.parametrize(("cap", "attempts", "runs"), [(1, 5, 1), (3, 5, 3), (9, 5, 5), (None, 5, 5)])
def test_the_node_may_cap_the_attempts_of_every_job(cap: int | None, attempts: int, runs: int) -> None:
    policies = Policies(Settings(max_attempts=cap))
    assert policies.find(task(retry=attempts), None).max_attempts == runs
    overrides = json.dumps({"retry": Retry(attempts).to_json()})
    assert policies.find(None, overrides).max_attempts == runs


@pytest.mark.parametrize(
    "overrides",
    ["7", '["timeout"]', '{"timeout": "soon"}', '{"timeout": "nan"}', '{"timeout": -1}', '{"timeout": null}',
     '{"retry": 3}', '{"retry": {"attempts": 0}}', '{"retry": {"attempts": "many"}}', "[" * 100_000],
)  # fmt: skip
def test_overrides_that_somebody_has_spoilt_are_left_out(overrides: str) -> None:
    """They are read between two jobs and beside the lease: an error would take the process along, again and again."""
    policies, limited = Policies(Settings()), task(timeout=1.5, retry=2)
    assert policies.find(limited, overrides) == policies.find(limited, None)
