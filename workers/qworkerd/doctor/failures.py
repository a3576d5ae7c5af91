"""Checks of jobs that fail, kill workers, or do not stop."""

from shlex import quote

from qworker.doctor import Row
from qworker.durations import format_duration
from qworker.findings import Severity
from qworker.fingerprint import to_hex
from qworkerd.doctor.check import Explained, Subject, check
from qworkerd.doctor.wording import count

#: A number of failures each hour below which it is not said.
_RARE = 0.1


@check("crashing-task", Severity.WARNING, "doctor_queues", "crashes")
def crashing_task(row: Row, _: Subject) -> Explained:
    """Find tasks whose jobs kill their workers."""
    cause = f"; the most frequent cause of death is {row['cause']}" if row["cause"] else ""
    return Explained(
        f"{count(row['jobs'], 'job')} of task {row['task']!r} failed in the last day after they had killed "
        f"workers{cause}",
        advice=f"see the stacks: qworker jobs show {row['ids'][0]}; when the cause is removed, retry them",
        remedy=(f"qworker jobs retry {' '.join(map(str, row['ids']))}",),
        about=f"task {row['task']}",
    )


@check("many-failures", Severity.WARNING, "doctor_queues", "failures", {"failures": 50})
def many_failures(row: Row, _: Subject) -> Explained:
    """Find tasks that fail much more often than before."""
    listing, most = f"qworker jobs list state:failed {quote('task:' + row['task'])}", ""
    usual = f"{row['usual']:.1f} in an average hour of" if row["usual"] >= _RARE else "hardly any in"
    if row["type"] is not None:
        listing = f"qworker errors show {to_hex(row['fingerprint'])}"
        most = f"; {count(row['same'], 'job')} with {row['type']}" + (f": {row['message']}" if row["message"] else "")
    return Explained(
        f"{count(row['jobs'], 'job')} of task {row['task']!r} failed with no attempt left in the last hour, "
        f"{usual} the day before{most}",
        advice=f"see why: {listing}; when the cause is removed, retry them",
        remedy=(f"qworker jobs retry {quote('task:' + row['task'])} --yes",),
        about=f"task {row['task']}",
    )


@check("ignored-cancellation", Severity.WARNING, "doctor_queues", "ignored_cancellations", {"cancel_age": 300.0})
def ignored_cancellation(row: Row, _: Subject) -> Explained:
    """Find jobs that continue to run after they were cancelled."""
    where = "" if row["node"] is None else f" on {row['node']}"
    return Explained(
        f"job {row['id']} of task {row['task']!r} still runs{where}, {format_duration(row['seconds'])} after it was "
        "cancelled: its handler blocks in code that cannot be interrupted, or ignores the interrupt",
        advice=""
        if row["pid"] is None
        else f"run this line on {row['host']}: the job ends as cancelled with its worker",
        remedy=() if row["pid"] is None else (f"kill -KILL {row['pid']}",),
        about=f"job {row['id']}",
    )


@check("long-running-job", Severity.HINT, "doctor_queues", "long_runs", {"long_run": 600.0}, cheap=False)
def long_running_job(row: Row, _: Subject) -> Explained:
    """Find jobs that run much longer than others of their task."""
    where = "" if row["node"] is None else f" on {row['node']}"
    return Explained(
        f"job {row['id']} of task {row['task']!r} has been running for {format_duration(row['seconds'])}{where}; 99 % "
        f"of {row['runs']:,} runs took no longer than {format_duration(row['most'])}",
        advice="if it hangs, cancel it, and set timeout= for the task",
        remedy=(f"qworker jobs cancel {row['id']}",),
        about=f"job {row['id']}",
    )


CHECKS = (crashing_task, many_failures, ignored_cancellation, long_running_job)
