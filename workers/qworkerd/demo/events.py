"""Reads the events of a node's log while the log is written."""

import json
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class Events:
    """The events of a log of JSON lines, oldest first; other lines are skipped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._rest = b""
        #: The events read so far.
        self.seen: list[Event] = []
        #: The last lines of any kind.
        self.tail: deque[str] = deque(maxlen=10)

    def read_new(self) -> list[Event]:
        """Read and return the events written since the last call."""
        before = len(self.seen)
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        self._read += len(text)
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in lines:
            self.tail.append(line.decode(errors="replace"))
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    self.seen.append(event)
        return self.seen[before:]

    def find(self, name: str, **facts: object) -> Iterator[Event]:
        """Yield the events with this name and these fields."""
        wanted = {"event": name, **facts}
        return (event for event in self.seen if wanted.items() <= event.items())

    def end_reason(self) -> str:
        """Return the errors with which the node ended, or else the last lines of its log."""
        fatal = (event for event in self.seen if event.get("level") == "critical")
        reasons = [str(event.get("exception") or event.get("error") or event.get("event")) for event in fatal]
        return "\n".join(reasons or self.tail)
