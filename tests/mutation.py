"""A line as it is, and as it must not be."""

from dataclasses import dataclass
from pathlib import Path

QUERIES = "queue/qworker/sql/queries"
WORKER, SCHEDULER = "workers/qworkerd/worker", "workers/qworkerd/scheduler"


@dataclass(frozen=True)
class Mutation:
    """A line as it is, as it must not be, and the tests that have to notice."""

    name: str
    path: str
    old: str
    new: str
    tests: str

    def apply(self, root: Path) -> str:
        """Return the file with the line broken; raises ValueError if the line is not there exactly once."""
        text = (root / self.path).read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.path} has {text.count(self.old)} times {self.old!r}")
        return text.replace(self.old, self.new)
