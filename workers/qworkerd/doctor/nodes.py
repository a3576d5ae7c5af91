"""Checks of nodes, clocks and schedules."""

from socket import gethostname
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from qworker.doctor import Row
from qworker.durations import format_duration
from qworker.errors import ConfigurationError
from qworker.findings import Severity
from qworker.schedule import Schedule
from qworker.status import pause_of
from qworkerd.doctor.check import Explained, Subject, check
from qworkerd.doctor.wording import count, listed, literal

#: Seconds by which a clock may differ, and by which a tick may be late.
SKEW, LATE = 2.0, 120.0
#: Years after which a database of time zones is old.
OLD_YEARS = 2


@check("orphaned-jobs", Severity.STOPS, "doctor_nodes", "orphans", {"orphan_age": 15.0})
def orphaned_jobs(row: Row, _: Subject) -> Explained:
    """Find jobs that run on a node that does not exist."""
    return Explained(
        f"{count(row['jobs'], 'job')} {'are' if row['jobs'] > 1 else 'is'} running since up to "
        f"{format_duration(row['seconds'] or 0)} ago on node {row['node']}, which is not registered: "
        f"{listed(map(str, row['ids']))}",
        advice="any live node releases them within seconds; if one lives, see maintenance.error in its log",
        remedy=("qworker",),
        about=f"node {row['node']}",
    )


@check("silent-node", Severity.WARNING, "doctor_nodes", "silent_nodes", {"silence": 5.0})
def silent_node(row: Row, _: Subject) -> Explained:
    """Find nodes that do not renew their lease."""
    expired = row["seconds"] > row["lease"]
    running = f", and {count(row['running'], 'job')} belong to it" if row["running"] else ""
    rest = "other nodes take over its jobs" if row["others"] else "no other node lives to take over its jobs: start one"
    what = "its lease has expired" if expired else f"its lease ends after {format_duration(row['lease'])}"
    return Explained(
        f"node {row['name']} has been silent for {format_duration(row['seconds'])}; {what}{running}",
        advice=f"see whether host {row['host']!r} is up and reaches the database; {rest}",
        remedy=() if row["others"] else ("qworker",),
        about=f"node {row['id']}",
    )


@check("long-node-pause", Severity.HINT, "doctor_nodes", "long_node_pauses", {"node_pause_age": 21_600.0})
def long_node_pause(row: Row, _: Subject) -> Explained:
    """Find nodes that were paused and forgotten."""
    pause = pause_of(**{name: row[name] for name in ("paused_at", "paused_by", "pause_reason")})
    return Explained(
        f"node {row['name']} has been paused for {format_duration(row['seconds'])}, {pause}",
        remedy=(f"qworker workers resume {row['id']}",),
        about=f"node {row['id']}",
    )


@check("node-churn", Severity.WARNING, "doctor_nodes", "registrations", {"registrations": 5})
def node_churn(row: Row, _: Subject) -> Explained:
    """Find nodes that are restarted all the time, or lose their leases."""
    where = "" if row["host"] is None else f" on host {row['host']!r}"
    return Explained(
        f"nodes have registered {row['registrations']} times in ten minutes{where}, but {count(row['nodes'], 'node')} "
        f"{'exists' if row['nodes'] == 1 else 'exist'} now: they are restarted all the time, or lose their leases",
        advice="see the ends of the logs (node.declared_dead, configuration.invalid), the service manager, and the "
        "memory limit of the container",
        about="" if row["host"] is None else f"host {row['host']}",
    )


@check("schedule-overdue", Severity.WARNING, "doctor_nodes", "schedules")
def schedule_overdue(row: Row, subject: Subject) -> Explained | None:
    """Find schedules that do not tick."""
    try:
        schedule = Schedule(row["name"], row["task"], row["expression"], row["timezone"])
        due = schedule.next(row["last_tick"])
    except ConfigurationError:  # schedule-timezone reports a time zone that is unknown here
        return None
    if due is None or row["at"] < due + LATE:
        return None
    late = f"the tick of schedule {row['name']!r} ({row['expression']}) is {format_duration(row['at'] - due)} late"
    if row["nodes"]:
        return Explained(
            f"{late}, although {listed(row['nodes'])} declare it",
            advice="see cron.error in the log of these nodes",
            about=f"schedule {row['name']}",
        )
    return Explained(
        f"{late}, and no live node declares it",
        advice="start the node that declares it; if the schedule was removed from the code, delete its row",
        remedy=(f"DELETE FROM {subject.schema}.cron WHERE name = {literal(row['name'])};",),  # noqa: S608 - quoted
        about=f"schedule {row['name']}",
    )


@check("schedule-timezone", Severity.HINT, "doctor_nodes", "schedules", cheap=False)
def schedule_timezone(row: Row, _: Subject) -> Explained | None:
    """Find schedules whose time zone is unknown on this host."""
    try:
        ZoneInfo(row["timezone"])
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return Explained(
            f"the time zone {row['timezone']!r} of schedule {row['name']!r} is unknown on this host: a node here "
            "cannot compute its ticks",
            advice="install the database of time zones where nodes run",
            remedy=("pip install --upgrade tzdata",),
            about=f"schedule {row['name']}",
        )
    return None


@check("timezone-data", Severity.HINT, "doctor_nodes", "timezone_data", cheap=False)
def timezone_data(row: Row, _: Subject) -> Explained | None:
    """Find nodes with an old database of time zones: their ticks may come at other times than those of others."""
    behind, old = row["version"] < row["newest"], int(row["version"][:4]) < row["year"] - OLD_YEARS
    if not behind and not old:
        return None
    others = f", other nodes have {row['newest']}" if behind else ""
    return Explained(
        f"nodes on {listed(row['hosts'])} compute the ticks of schedules by time zones of version "
        f"{row['version']}{others}: after a change of the rules, ticks come at the wrong time",
        advice="update the database of the system where it has one (the package tzdata), and restart the nodes",
        remedy=("pip install --upgrade tzdata",),
        about=f"version {row['version']}",
    )


@check("clock-skew", Severity.WARNING, "doctor_nodes", "clocks")
def clock_skew(row: Row, subject: Subject) -> Explained | None:
    """Find clocks of nodes, and of this host, that differ from that of the database."""
    here = gethostname()
    if row["host"] is None:
        if not subject.answered:  # a node makes the check: the rows have its own clock, too
            return None
        ahead = (subject.sent + subject.answered) / 2 - row["at"]
        uncertain, name, about = (subject.answered - subject.sent) / 2, "this host", ""
    else:
        if subject.answered and row["host"] == here:
            return None
        ahead, uncertain = row["ahead"], row["uncertain"]
        name, about = f"host {row['host']!r} (node {row['node']})", f"host {row['host']}"
    if abs(ahead) - uncertain < SKEW:
        return None
    return Explained(
        f"the clock of {name} is {format_duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} that of the "
        f"database (± {format_duration(uncertain)}): delays that are computed there, and times in logs, are off by "
        "as much",
        advice=f"synchronize it and that of the database (chrony, systemd-timesyncd); on {name}, run this line",
        remedy=("timedatectl set-ntp true",),
        about=about,
    )


CHECKS = (
    orphaned_jobs, silent_node, long_node_pause, node_churn, schedule_overdue, schedule_timezone, timezone_data,
    clock_skew,
)  # fmt: skip
