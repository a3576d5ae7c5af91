"""A check: a statement that looks for a problem, and a function that explains each row that it finds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from qworker.doctor import Row, Server
from qworker.findings import Finding, Severity

#: Maximum number of characters that are shown of a row that cannot be explained.
SHOWN = 200


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined, beside the rows of a check."""

    server: Server
    schema: str
    #: Whether the connection leads through a pooler such as PgBouncer.
    pooled: bool = False
    #: Whether the settings name a direct connection beside it; None if the settings are unknown.
    direct: bool | None = None
    #: When the statement was sent and answered, by the clock of this host (seconds since 1970).
    sent: float = 0.0
    answered: float = 0.0


@dataclass(frozen=True, slots=True)
class Explained:
    """What a row means; see the fields of Finding."""

    summary: str
    advice: str = ""
    remedy: tuple[str, ...] = ()
    about: str = ""
    #: The severity of this row, if it differs from that of the check.
    severity: Severity | None = None


class CannotCheck(Exception):
    """Raised by a function that explains rows, if they say that the check could not be made."""


#: A parameter of a statement: a number, or a function that makes it of the schema's name.
Limit = float | Callable[[str], Any]
#: Explains a row, or returns None if it is not a problem.
Explain = Callable[[Row, Subject], Explained | None]


@dataclass(frozen=True, slots=True)
class Check:
    """One kind of problem. The statement returns a row for each problem, or for each candidate."""

    #: A stable name, which is also its heading in docs/doctor.md.
    id: str
    severity: Severity
    #: The file below sql/queries and the name of the statement in it.
    area: str
    statement: str
    explain: Explain
    #: The parameters of the statement: the limits from which on it finds something.
    limits: Mapping[str, Limit] = field(default_factory=dict)
    #: Whether it needs to see the sessions of other roles. Without that privilege it sees only its own.
    sessions: bool = False
    #: Whether it needs the privileges of pg_monitor; without them it cannot run.
    monitor: bool = False
    #: Whether it reads so little that the scheduler runs it once a minute.
    cheap: bool = True
    #: Whether it reads so much that it runs only if requested.
    deep: bool = False
    #: The oldest and the newest version of the server that it applies to, as in server_version_num.
    since: int = 0
    until: int = 10_000_000

    def parameters(self, schema: str, replaced: Mapping[str, float] = MappingProxyType({})) -> dict[str, Any]:
        """Return the parameters of the statement; `replaced` has others than the limits of the check."""
        own = {name: limit(schema) if callable(limit) else limit for name, limit in self.limits.items()}
        return own | {name: value for name, value in replaced.items() if name in own}

    def finding(self, row: Row, subject: Subject) -> Finding | None:
        """Return the finding of a row, if it is one; raises CannotCheck."""
        try:
            found = self.explain(row, subject)
        except CannotCheck:
            raise
        except Exception as error:  # values that were edited by hand must not hide the other findings
            reason = f"{type(error).__name__}: {error}"
            raise CannotCheck(f"a row has values that cannot be explained ({reason}): {_shortened(row)}") from error
        if found is None:
            return None
        return Finding(
            check=self.id, about=found.about, severity=found.severity or self.severity, summary=found.summary,
            advice=found.advice, remedy=found.remedy, evidence=row,
        )  # fmt: skip


def _shortened(row: Row) -> str:
    text = repr(row)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def check(
    name: str, severity: Severity, area: str, statement: str, /, limits: Mapping[str, Limit] | None = None,
    *, sessions: bool = False, monitor: bool = False, cheap: bool = True, deep: bool = False, since: int = 0,
    until: int = 10_000_000,
) -> Callable[[Explain], Check]:  # fmt: skip
    """Turn a function that explains a row into a check."""
    return lambda explain: Check(
        name, severity, area, statement, explain, dict(limits or {}), sessions, monitor, cheap, deep, since, until
    )
