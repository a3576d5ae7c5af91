"""Compare two jobs: what differs in arguments, options, times, errors and logs."""

from collections.abc import Iterable
from textwrap import indent
from typing import Any

import click

from qworker import comparison
from qworker.comparison import OF_THE_TASK, ComparedJob, Comparison, Comparisons
from qworker.differences import MAX_PARTS, Differences
from qworker.durations import format_duration, format_ratio
from qworker.filters.model import written_path
from qworker.job import Job
from qworker.search import PATIENT
from qworker.statistics import Statistics
from qworker.typical import Typical, TypicalTimes, typical_times
from qworkerd.cli.jobs import IDS
from qworkerd.cli.options import app_optional
from qworkerd.cli.running import local_time
from qworkerd.cli.tables import as_json, safe_echo, table, text
from qworkerd.config.target import Target
from qworkerd.log.pairs import masked_differences, side_by_side
from qworkerd.log.redaction import mask_and_shorten
from qworkerd.process import exits


@click.command(short_help="Compare two jobs, or a job with the last successful run of its task.")
@click.argument("first", metavar="ID", type=IDS)
@click.argument("second", metavar="[OTHER]", type=IDS, required=False)
@click.option("--json", "json_output", is_flag=True, help="Print a JSON object.")
@app_optional
def compare(target: Target, *, first: int, second: int | None, json_output: bool) -> None:
    """Compare two jobs: arguments, options, times, errors, and the last lines of their logs. What is equal is left out.

    Without OTHER, the job is compared with the newest job of the same task in the same queue that has succeeded. No
    index serves that search: it looks at a limited number of jobs, and exits with status 1 if it finds none.

    The times are those of the last attempt that has ended, beside the median of the attempts of the task in its queue
    in the last 24 hours, which is off by at most 9 %.
    """
    job = target.admin.show(first)
    other = target.admin.show(_last_success(target, job) if second is None else second)
    logs = {one.id: target.admin.logs(one.id) for one in (job, other)}
    statistics = Statistics(target.schema)
    with target.connection("compare", statement_timeout=10.0) as database:
        circumstances = Comparisons(target.schema).read(database, job, other)
        typical = [typical_times(database, statistics, one.queue, one.task) for one in (job, other)]
    found = comparison.compare(job, other, circumstances=circumstances, logs=logs)
    if json_output:
        as_json(_as_dict(found, typical))
        return
    _print(found, typical)


def _last_success(target: Target, job: Job) -> int:
    found = comparison.last_success(target.search, job, time_limit=PATIENT)
    if found.job is None:
        back = "" if found.looked_back_to is None else f" among the jobs since {local_time(found.looked_back_to)}"
        safe_echo(f"no other successful run of {job.task} in queue {job.queue} is stored{back}", err=True)
        click.get_current_context().exit(exits.FAILURE)
    return found.job


def _as_dict(found: Comparison, typical: list[TypicalTimes]) -> dict[str, Any]:
    arguments = None if found.arguments is None else masked_differences(found.arguments)
    return {
        "a": found.a.job.id, "b": found.b.job.id, "jobs": [_job_as_dict(one) for one in (found.a, found.b)],
        "facts": found.facts, "arguments": arguments, "errors": found.errors, "same_frames": found.same_frames,
        "same_log": found.same_log, "typical": [one.as_dict() for one in typical],
    }  # fmt: skip


def _job_as_dict(one: ComparedJob) -> dict[str, Any]:
    job = one.job
    return {
        "id": job.id, "task": job.task, "queue": job.queue, "state": job.state, "enqueued_at": job.enqueued_at,
        "finished_at": job.finished_at, "times": one.times, "frames": one.frames, "log": one.log,
        "attempts": [
            {"number": each.number, "end": each.end, "waited": each.waited, "ran": each.ran} for each in one.attempts
        ],
    }  # fmt: skip


def _print(found: Comparison, typical: list[TypicalTimes]) -> None:
    names = tuple(f"JOB {one.job.id}" for one in (found.a, found.b))
    if found.itself:
        safe_echo("both are the same job", err=True)
    rows = [
        (fact.name.replace("_", " "), _fact(fact.a), _fact(fact.b), "")
        for fact in found.facts if fact.differs
    ]  # fmt: skip
    rows += [
        (name, _time(a, typical[0], name), _time(b, typical[1], name), _longer(found, a, b))
        for name, a, b in (
            (name, getattr(found.a.times, name), getattr(found.b.times, name)) for name in ("waited", "ran", "total")
        )
    ]
    table(("", *names, "COMPARED"), rows, note=True)
    if found.arguments is not None:
        _print_arguments(found.arguments, names)
    if found.errors:
        safe_echo()
        table(("ERROR", *names), [(f"{one.type}: {one.message}" if one.message else one.type, one.a, one.b)
                                  for one in found.errors])  # fmt: skip
    if not found.same_frames:
        _print_parts("innermost frames", found, [one.frames for one in (found.a, found.b)])
    if not found.same_log:
        _print_parts("last lines of the log", found, [_lines(one) for one in (found.a, found.b)])
    equal = [fact.name.replace("_", " ") for fact in found.facts if not fact.differs]
    equal += ["arguments"] * (found.arguments is not None and found.arguments.same)
    equal += ["innermost frames"] * (found.same_frames and bool(found.a.frames))
    equal += ["last lines of the log"] * (found.same_log and found.a.log is not None)
    safe_echo(f"\nequal, or not known of both: {', '.join(equal)}", err=True)


def _print_arguments(found: Differences, names: tuple[str, ...]) -> None:
    if not found.complete:
        safe_echo(f"the arguments are large: only their first {MAX_PARTS:,} parts were compared", err=True)
    if not found.different:
        return
    safe_echo()
    rows = []
    for one in found.different:
        a, b = side_by_side(one.path, one.a, one.b)
        rows.append((written_path(one.path), a if one.in_a else "missing", b if one.in_b else "missing"))
    table(("ARGUMENT", *names), rows)
    if found.different_count > len(rows):
        safe_echo(f"and {found.different_count - len(rows):,} more differences", err=True)


def _print_parts(title: str, found: Comparison, parts: Iterable[Iterable[str]]) -> None:
    safe_echo()
    for one, lines in zip((found.a, found.b), parts, strict=True):
        safe_echo(f"job {one.job.id}, {title}:")
        for line in [*lines] or ["-"]:
            safe_echo(indent(mask_and_shorten(line), "    "))


def _lines(one: ComparedJob) -> list[str]:
    return [] if one.log is None else [f"{line.level:<8} {line.event}" for line in one.log.lines]


def _fact(value: object) -> str:
    return "that of the task" if value == OF_THE_TASK else text(value)


def _time(seconds: float | None, typical: TypicalTimes, name: str) -> str:
    if seconds is None:
        return text(None)
    usual: Typical | None = {"waited": typical.wait, "ran": typical.run}.get(name)
    ratio = None if usual is None else usual.ratio(seconds)
    return format_duration(seconds) + ("" if ratio is None else f" ({format_ratio(ratio)} x the median)")


def _longer(found: Comparison, a: float | None, b: float | None) -> str:
    if a is None or b is None or min(a, b) <= 0 or max(a, b) / min(a, b) < 1.1:  # noqa: PLR2004
        return ""
    longest, ratio = (found.a, a / b) if a > b else (found.b, b / a)
    return f"job {longest.job.id}: {format_ratio(ratio)} x as long"
