"""Runs checks one by one, each in a read-only transaction with its own time limit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from shlex import quote
from time import time

import psycopg

from qworker.db.errors import command
from qworker.db.pgbouncer import is_pooled
from qworker.db.statements import Database
from qworker.doctor import Doctor, Row
from qworker.findings import Finding, Severity
from qworkerd.doctor.check import CannotCheck, Check, Subject
from qworkerd.doctor.wording import identifier

#: Limits of the statement of each check (seconds).
STATEMENT_TIMEOUT, LOCK_TIMEOUT, DEEP_TIMEOUT = 2.0, 0.2, 600.0
#: Errors by which a statement tells that data is damaged; the check explains them like a row.
CORRUPTED = (psycopg.errors.IndexCorrupted, psycopg.errors.DataCorrupted)
#: The check whose finding says also which checks the role may not make.
PRIVILEGES = "missing-privileges"
#: Severities, the most urgent first.
ORDER = list(Severity)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A check that was not made, or only in part."""

    check: str
    reason: str


@dataclass
class Examination:
    """The result of all checks."""

    findings: list[Finding] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    #: The checks that were not requested or are not for this server, and why.
    left_out: list[Skipped] = field(default_factory=list)
    #: The number of checks that were made.
    checks: int = 0
    #: The privileges that the role lacks to make all checks, and the statement that grants them.
    missing_privileges: str = ""
    #: The checks that the role may not make, because it may not read tables of qworker.
    denied: list[str] = field(default_factory=list)

    @property
    def worst(self) -> Severity | None:
        """The highest severity of the findings."""
        return min((finding.severity for finding in self.findings), key=ORDER.index, default=None)


def examine(
    database: Database, schema: str, checks: Sequence[Check], *, direct: bool | None = None,
    limits: Mapping[str, float] | None = None,
) -> Examination:  # fmt: skip
    """Make the checks on a connection with the time limits above.

    direct: whether the settings name a direct connection beside one through a pooler. limits: values that replace those
    of the checks.
    """
    doctor, result = Doctor(schema), Examination()
    subject = Subject(doctor.server(database), schema, is_pooled(database), direct)
    database.read_only = True
    for check in checks:
        if not applies(check, subject):
            if not any(other.id == check.id and applies(other, subject) for other in checks):
                result.left_out.append(Skipped(check.id, f"is not for PostgreSQL {subject.server.version // 10_000}"))
            continue
        if (reason := _obstacle(check, subject)) is not None:
            result.skipped.append(Skipped(check.id, reason))
            continue
        _make(check, database, doctor, subject, result, limits or {})
    result.findings.sort(key=lambda finding: ORDER.index(finding.severity))
    if result.denied:
        result.findings.insert(0, _blindness(result, subject))
    if not (subject.server.reads_sessions and subject.server.reads_wal):
        role = subject.server.role
        result.missing_privileges = (
            f"role {role!r} lacks pg_monitor and sees only its own sessions: GRANT pg_monitor TO {identifier(role)};"
        )
    return result


def _make(
    check: Check, database: Database, doctor: Doctor, subject: Subject, result: Examination, limits: Mapping[str, float]
) -> None:  # fmt: skip
    """Make a check, and add what it finds, or why it could not be made, to the result."""
    try:
        found, problem = _run(database, doctor, check, subject, limits)
    except psycopg.Error as error:
        if database.closed:
            raise
        result.skipped.append(Skipped(check.id, _reason(error)))
        if isinstance(error, psycopg.errors.InsufficientPrivilege) and not check.monitor:
            result.denied.append(check.id)
        return
    result.findings += found
    if problem:
        result.skipped.append(Skipped(check.id, problem))
        if not found:
            return
    result.checks += 1
    if check.sessions and not subject.server.reads_sessions:
        result.skipped.append(Skipped(check.id, "sessions of other roles: pg_read_all_stats is missing"))


def _run(
    database: Database, doctor: Doctor, check: Check, subject: Subject, limits: Mapping[str, float]
) -> tuple[list[Finding], str]:
    """Return the findings, and why a row could not be explained, if there is one."""
    parameters = check.parameters(subject.schema, limits)
    try:
        sent = time()
        with database.transaction():
            rows = doctor.rows(database, check.area, check.statement, parameters)
        subject = replace(subject, sent=sent, answered=time())
    except CORRUPTED as error:
        rows = [{"error": error.diag.message_primary or str(error).strip()}]
    return explain_rows(check, rows, subject)


def explain_rows(check: Check, rows: Iterable[Row], subject: Subject) -> tuple[list[Finding], str]:
    """Return the findings of the rows of a check, and why one of them could not be explained."""
    findings, problem = [], ""
    for row in rows:
        try:
            finding = check.finding(row, subject)
        except CannotCheck as error:
            problem = problem or str(error)
        else:
            findings += [finding] if finding is not None else []
    return findings, problem


def applies(check: Check, subject: Subject) -> bool:
    """Return whether a check is made on servers of this version."""
    return check.since <= subject.server.version <= check.until


def _blindness(result: Examination, subject: Subject) -> Finding:
    """Return the finding that the role cannot see whether something is wrong: it is not a healthy cluster."""
    role, number = subject.server.role, len(result.denied)
    reason = next(skipped.reason for skipped in result.skipped if skipped.check == result.denied[0])
    return Finding(
        check=PRIVILEGES, about=f"role {role}", severity=Severity.WARNING,
        summary=f"{number} check{'s' * (number != 1)} could not be made, because role {role!r} may not read what "
        f"{'they need' if number != 1 else 'it needs'}: {reason}",
        advice="as the owner of the schema, or examine the cluster as another role",
        remedy=(command(f"grant --role {quote(role)} --as viewer", subject.schema),),
        evidence={"role": role, "checks": list(result.denied)},
    )  # fmt: skip


def _obstacle(check: Check, subject: Subject) -> str | None:
    """Return why a check cannot be made on this server by this role, or None."""
    if check.monitor and not subject.server.reads_wal:
        return "pg_monitor is missing"
    return None


def _reason(error: psycopg.Error) -> str:
    if isinstance(error, psycopg.errors.QueryCanceled):
        return "timed out"
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return "a table was locked"
    return error.diag.message_primary or str(error).strip()
