"""Finds the reasons why a job does not run."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

from qworker import program
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.decoding import decode
from qworker.durations import format_duration
from qworker.job import Job, JobState
from qworker.queues import resume_command
from qworker.reasons import Cause, Explanation, QueuePosition, Reason
from qworker.status import Pause, pause_of

#: Jobs ahead of a job that are counted, and the period from which the throughput of a queue is computed (seconds).
MAX_AHEAD, WINDOW = 10_000, 480.0
#: A job that is due is promoted within this time (seconds); a live node renews its lease once a second.
PROMOTION, SILENCE = 5.0, 10.0
#: Paused nodes that are named in a reason.
MAX_SHOWN = 5

#: The columns of a row.
Facts = dict[str, Any]


class Explanations(Statements):
    """The statements that explain jobs."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("explanation", schema)

    def explain(self, database: Database, job: Job) -> Explanation:
        """Explain a job that was just read; if it has changed since, in the state in which it was read."""
        facts = next(iter(self._records(database, "facts", _row, id=job.id)), None)
        if facts is None or job.finished:
            return Explanation(job, tuple(_ended(job)))
        for name in ("pause", "key", "locker", "node", "serving"):
            facts[name] = decode(facts[name])
        facts["serving"] = [node for node in facts["serving"] or [] if isinstance(node, Mapping)]
        facts["working"] = [node for node in facts["serving"] if not node.get("pause")]
        if job.state is JobState.RUNNING:
            return Explanation(job, (*_running(job, facts), *_key(facts)))
        position = self._position_of(database, job, facts) if job.state is JobState.AVAILABLE else None
        return Explanation(job, (*_waiting(job, facts, position), *_key(facts)), position)

    def _position_of(self, database: Database, job: Job, facts: Mapping[str, Any]) -> QueuePosition:
        before: set[str] = set()
        for node in facts["working"]:
            before.update(takewhile(lambda queue: queue != job.queue, node["queues"]))
        (found,) = self._records(
            database, "ahead", _row,
            queue=job.queue, priority=job.priority, seq=facts["seq"], limit=MAX_AHEAD, before=sorted(before),
        )  # fmt: skip
        ahead = min(found["jobs"], MAX_AHEAD)
        parameters = {"queue": job.queue, "window": WINDOW}
        counted = self._records(database, "counted", _row, **parameters)
        (ended,) = counted or self._records(database, "throughput", _row, **parameters)
        rate = ended["jobs"] / max(ended["seconds"], 1.0) if ended["jobs"] else None
        expected = None
        if facts["working"] and not facts["pause"] and not found["queues"] and ahead < MAX_AHEAD:
            expected = ahead / rate if rate else self._expected(database, job.queue, ahead, facts["working"])
        return QueuePosition(ahead, found["jobs"] >= MAX_AHEAD, tuple(found["queues"]), rate, expected)

    def _expected(
        self, database: Database, queue: str, ahead: int, working: list[Mapping[str, Any]]
    ) -> float | None:  # fmt: skip
        """Return how long the workers need for the jobs ahead if none of the queue has ended lately."""
        mean, total = self._scalar(database, "mean_run", queue=queue), sum(node["workers"] for node in working)
        return ahead * mean / total if mean is not None and total else None


def _row(**columns: Any) -> Facts:
    return columns


def _key(facts: Facts) -> Iterator[Reason]:
    if facts["key"]:
        key = facts["key"]["key"]
        yield Reason(
            Cause.HOLDS_KEY, f"it holds the unique key {key!r}: until it ends, enqueueing with it returns this job",
            facts["key"],
        )  # fmt: skip


def _ended(job: Job) -> Iterator[Reason]:
    last = dict(job.errors[-1]) if job.errors else {}
    evidence = {"finished_at": job.finished_at, "attempt": job.attempt, "node": job.node, "error": last or None}
    what = f"{last.get('type')}: {last.get('message')}" if last.get("type") else ""
    match job.state:
        case JobState.COMPLETED:
            ran = "" if job.duration is None else f" after its handler had run for {format_duration(job.duration)}"
            yield Reason(Cause.COMPLETED, f"the job has completed in attempt {job.attempt}{ran}", evidence)
        case JobState.FAILED:
            attempts = f"{job.attempt} attempt{'s' * (job.attempt != 1)}"
            crashes = f", {job.crashes} of which killed the worker" if job.crashes else ""
            crashes = ", which killed the worker" if job.crashes == job.attempt == 1 else crashes
            losses = f"; its node was lost {job.node_losses} times" if job.node_losses else ""
            yield Reason(
                Cause.FAILED, f"the job has failed after {attempts}{crashes}{losses}, the last with {what}",
                evidence, f"qworker jobs retry {job.id}",
            )  # fmt: skip
        case JobState.CANCELLED if last.get("type") == "Expired":
            yield Reason(Cause.EXPIRED, f"the job has expired: it was {last.get('message')}", evidence)
        case JobState.CANCELLED:
            yield Reason(Cause.CANCELLED, "the job was cancelled" + (f" ({what})" if what else ""), evidence)
        case JobState.DISCARDED:
            yield Reason(
                Cause.DISCARDED, "the job has failed and was discarded" + (f": {what}" if what else ""), evidence
            )


def _running(job: Job, facts: Mapping[str, Any]) -> Iterator[Reason]:
    node, since = facts["node"], job.claimed_at
    ran = "" if since is None else f" for {format_duration(max(0.0, facts['now'] - since.timestamp()))}"
    if not isinstance(node, Mapping):
        yield Reason(
            Cause.NODE_GONE, f"the job has been running{ran} on node {job.node}, which is not registered any more",
            {"node": job.node}, "" if facts["live_nodes"] else "qworker",
        )  # fmt: skip
        return
    worker = next((entry for entry in _workers(node) if entry.get("job") == job.id), {})
    pid = f", worker {worker.get('worker')} (pid {worker.get('pid')})" if worker else ", claimed but not started yet"
    evidence = {"node": node["name"], "worker": worker or None, "silence": node["silence"]}
    if job.cancel_requested_at is not None:
        ago = format_duration(max(0.0, facts["now"] - job.cancel_requested_at.timestamp()))
        yield Reason(
            Cause.CANCEL_REQUESTED, f"its cancellation was requested {ago} ago, and its handler has not ended yet",
            evidence | {"cancel_requested_at": job.cancel_requested_at},
        )  # fmt: skip
    if node["silence"] > min(SILENCE, node["lease"]):
        yield Reason(
            Cause.NODE_SILENT,
            f"node {node['name']} has been silent for {format_duration(node['silence'])}; after its lease of "
            f"{format_duration(node['lease'])} other nodes release the job",
            evidence, "" if facts["live_nodes"] else "qworker",
        )  # fmt: skip
    yield Reason(Cause.RUNNING, f"the job has been running{ran} on {node['name']}{pid}", evidence)


def _waiting(job: Job, facts: Mapping[str, Any], position: QueuePosition | None) -> Iterator[Reason]:
    serving = facts["serving"]
    if facts["standby"] or facts["read_only"]:
        yield Reason(
            Cause.READ_ONLY, "the database accepts no writes here, so no node can claim jobs",
            {"standby": facts["standby"], "default_transaction_read_only": facts["read_only"]},
            "qworker doctor --only read-only",
        )  # fmt: skip
    if job.state is JobState.BLOCKED:
        yield Reason(Cause.BLOCKED, "the job waits for other jobs", {})
    if job.state is JobState.SCHEDULED:
        yield from _scheduled(job, facts)
    if facts["pause"]:
        remedy = resume_command(job.queue).partition("`")[2].rstrip("`")
        yield Reason(Cause.PAUSED, f"queue {job.queue!r} is paused {_pause(facts['pause'])}", facts["pause"], remedy)
    if not facts["live_nodes"]:
        yield Reason(Cause.NO_NODE, "no node is live", {"live_nodes": 0}, "qworker")
    elif not serving:
        yield Reason(
            Cause.UNSERVED, f"none of {facts['live_nodes']} live nodes serves queue {job.queue!r}",
            {"live_nodes": facts["live_nodes"]}, f"qworker --queues {job.queue}",
        )  # fmt: skip
    if serving and not facts["working"]:
        yield _nodes_paused(job, serving)
    if facts["locker"]:
        yield _locked(facts["locker"])
    if position is not None and facts["working"]:
        yield _in_line(job, facts["working"], position)


def _scheduled(job: Job, facts: Mapping[str, Any]) -> Iterator[Reason]:
    left = facts["run_at"] - facts["now"]
    when = f"in {format_duration(left)}" if left > 0 else f"{format_duration(-left)} ago"
    evidence = {"run_at": facts["run_at"], "attempt": job.attempt}
    if facts["unknown_task_count"]:
        yield Reason(
            Cause.UNKNOWN_TASK,
            f"workers have put it back {facts['unknown_task_count']} times because they do not know task "
            f"{job.task!r}; they try again {when}",
            evidence | {"unknown_task_count": facts["unknown_task_count"]},
        )  # fmt: skip
    elif job.errors and job.attempt:
        last = job.errors[-1]
        yield Reason(
            Cause.RETRYING,
            f"attempt {job.attempt} failed with {last.get('type')}: {last.get('message')}; the next one is due {when}",
            evidence,
        )  # fmt: skip
    else:
        yield Reason(Cause.NOT_DUE, f"its start time is {when}", evidence)
    if left < -PROMOTION:
        yield Reason(
            Cause.NOT_PROMOTED, f"it has been due for {format_duration(-left)}, and no node has made it available",
            evidence,
            "qworker doctor --only not-promoted",
        )  # fmt: skip


def _nodes_paused(job: Job, serving: list[Mapping[str, Any]]) -> Reason:
    shown = [f"{node['name']} {_pause(node['pause'])}" for node in serving[:MAX_SHOWN]]
    more = f"; and {len(serving) - len(shown)} more" if len(serving) > len(shown) else ""
    which = (
        f"the only live node that serves queue {job.queue!r} is" if len(serving) == 1
        else f"all {len(serving)} live nodes that serve queue {job.queue!r} are"
    )  # fmt: skip
    ids = " ".join(str(node["id"]) for node in serving)
    return Reason(
        Cause.NODES_PAUSED, f"{which} paused: {'; '.join(shown)}{more}",
        {"nodes": [{"id": node["id"], "name": node["name"], **node["pause"]} for node in serving]},
        program.command(f"workers resume {ids}"),
    )  # fmt: skip


def _pause(found: Mapping[str, Any]) -> Pause:
    return pause_of(paused_at=found["at"], paused_by=found["by"], pause_reason=found["reason"])


def _locked(locker: Mapping[str, Any]) -> Reason:
    if locker["pid"] is None:
        return Reason(Cause.LOCKED, "a prepared transaction has locked its row, and claims skip it", locker,
                      "qworker doctor --only prepared-transaction")  # fmt: skip
    application = f", application {locker['application']!r}" if locker["application"] else ""
    open_for = "" if locker["seconds"] is None else f" for {format_duration(locker['seconds'])}"
    return Reason(
        Cause.LOCKED,
        f"session {locker['pid']} (role {locker['role']}{application}) has locked its row, in a transaction{open_for}; "
        "claims skip it",
        locker, f"SELECT pg_terminate_backend({locker['pid']});",
    )  # fmt: skip


def _in_line(job: Job, serving: list[Mapping[str, Any]], position: QueuePosition) -> Reason:
    total = sum(node["workers"] for node in serving)
    busy = [entry for node in serving for entry in _workers(node) if entry.get("job") is not None]
    evidence = {"nodes": [node["name"] for node in serving], "workers": total, "busy": busy}
    ahead = f"{position.ahead:,}{' or more' if position.capped else ''} jobs of queue {job.queue!r} are ahead of it"
    if position.queues_before:
        ahead += f", and those of queues that are served before ({', '.join(position.queues_before)})"
    start = (
        "" if position.expected_start is None else f"; expected to start in {format_duration(position.expected_start)}"
    )
    if len(busy) >= total:
        tasks = Counter(str(entry.get("task")) for entry in busy)
        longest = max((entry["ran"] for entry in busy if isinstance(entry.get("ran"), int | float)), default=None)
        since = "" if longest is None else f", the longest for {format_duration(longest)}"
        what = ", ".join(f"{number} with {task}" for task, number in tasks.most_common(3))
        return Reason(
            Cause.BUSY, f"all {total} workers that serve the queue are busy ({what}{since}); {ahead}{start}", evidence
        )
    return Reason(
        Cause.STARTING,
        f"{total - len(busy)} of {total} workers that serve the queue are idle; {ahead}{start}",
        evidence,
    )


def _workers(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    state = node.get("state")
    found = state.get("workers") if isinstance(state, Mapping) else None
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []
