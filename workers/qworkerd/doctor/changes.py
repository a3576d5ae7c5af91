"""What has changed between two examinations: findings that are new, and those that are gone."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from qworker.findings import Finding


@dataclass(frozen=True, slots=True)
class Change:
    """The difference between two examinations."""

    found: tuple[Finding, ...]
    resolved: tuple[Finding, ...]

    def __bool__(self) -> bool:
        """Return whether anything has changed."""
        return bool(self.found or self.resolved)


class KnownFindings:
    """The findings that were reported and still exist."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Finding] = {}

    def compare(self, findings: Iterable[Finding], checks: Collection[str]) -> Change:
        """Return what has changed; `checks` are those that were made. Of all others the last result still holds."""
        now = {finding.key: finding for finding in findings}
        return Change(
            tuple(finding for key, finding in now.items() if key not in self._known),
            tuple(old for key, old in self._known.items() if key not in now and old.check in checks),
        )

    def accept(self, change: Change) -> None:
        """Remember that a change was reported."""
        for finding in change.resolved:
            self._known.pop(finding.key, None)
        self._known.update((finding.key, finding) for finding in change.found)

    def current(self) -> list[Finding]:
        """Return the findings that still exist."""
        return list(self._known.values())

    def reset(self) -> None:
        """Forget all findings, without reporting that they are gone."""
        self._known.clear()
