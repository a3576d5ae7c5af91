"""Describes the notable events of a node in words."""

from datetime import datetime

import click

from qworkerd.demo.events import Event, Events

_HIDDEN = frozenset({"timestamp", "exception"})
#: The beginning of the error of a job whose worker died.
WORKER_DIED = "WorkerDied:"


def narrate(event: Event) -> str | None:
    """Return an event as a line for people; None for routine events."""
    colour = None
    match event:
        case {"event": "cron.enqueued", "task": task, "tick": tick}:
            text = f"enqueued for {datetime.fromtimestamp(tick).astimezone():%H:%M:%S}"
        case {"event": "job.retried", "task": task, "attempt": n, "max_attempts": most, "error": e, "retry_in": pause}:
            text, colour = f"run {n} of {most}: {e}; again in {pause:g} s", "yellow"
        case {"event": "child.died", "task": task, "child": child, "child_pid": pid, "cause": cause}:
            text, colour = f"{child} (pid {pid}) died of {cause} and is replaced", "red"
        case {"event": "job.failed", "task": task, "cause": cause, "error": error} if error.startswith(WORKER_DIED):
            text, colour = f"failed, its worker died of {cause}; kept for inspection", "red"
        case {"event": "job.failed", "task": task, "duration": seconds, "error": error}:
            reason = error.partition(":")[0].rpartition(".")[2]
            text, colour = f"failed after {seconds:.1f} s ({reason}); kept for inspection", "red"
        case {"event": "doctor.finding", "finding": finding, "remedy": remedy, **_rest}:
            task, colour, text = "doctor", "yellow", f"{finding}; {remedy}" if remedy else finding
        case {"event": "errors.new_group"}:
            return None  # the attempt has a line already
        case {"level": "warning" | "error" | "critical" as level, "event": name, **facts} if name != "job.crashed":
            task, colour = "node", "yellow" if level == "warning" else "red"
            text = " ".join([name, *(f"{key}={value}" for key, value in facts.items() if key not in _HIDDEN)])
        case _:
            return None
    return f"{click.style(f'{short(task):<7}', fg=colour, bold=True)} {text}"


def retries(events: Events) -> int:
    """Return the number of attempts that were followed by another one.

    An attempt whose outcome was lost with its worker runs again under the same number, and counts once.
    """
    found = (event for name in ("job.retried", "job.crashed") for event in events.find(name))
    return len({(event["job"], event["attempt"]) for event in found})


def pauses(events: Events, job: int) -> list[float]:
    """Return the pause after each failed attempt of a job (seconds), in order."""
    found = {event["attempt"]: event["retry_in"] for event in events.find("job.retried", job=job)}
    return [found[attempt] for attempt in sorted(found)]


def short(task: str) -> str:
    """Return a task's name without its module."""
    return task.rpartition(".")[2]
