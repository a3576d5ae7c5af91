"""What a check of the database, the queues or the nodes has found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from qworker import program


class Severity(StrEnum):
    """How urgent a finding is."""

    #: Jobs do not run, or work is lost, until something is done.
    STOPS = "stops"
    #: It will stop or slow down work if nothing is done.
    WARNING = "warning"
    #: It costs something, or is probably not intended.
    HINT = "hint"


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that a check has found. Its `key` stays the same while the problem exists, its values change."""

    #: The id of the check, which is also its heading in docs/doctor.md.
    check: str
    #: What it is about, such as a queue or a session; empty if the check has a single subject.
    about: str
    severity: Severity
    #: What was found, with the values, in one line.
    summary: str
    #: What to do, if it is more than to run the remedy.
    advice: str = ""
    #: The commands that remove the cause, one a line: SQL, or lines for a shell. Empty if no command does.
    remedy: tuple[str, ...] = ()
    #: The row that the finding was made from: counts, ages in seconds, sizes in bytes.
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Identify the problem, whatever its current values."""
        return (self.check, self.about)

    @property
    def documentation(self) -> str:
        """Return the command that prints the documentation of the check."""
        return program.command(f"doctor --explain {self.check}")
