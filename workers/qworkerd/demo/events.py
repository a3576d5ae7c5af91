"""What a node tells in its log, read while it writes."""

import json
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class Events:
    """The events of a log of JSON lines, oldest first; other lines are left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._rest = b""
        #: Those read so far.
        self.seen: list[Event] = []
        #: The last lines of any kind.
        self.tail: deque[str] = deque(maxlen=10)

    def fresh(self) -> list[Event]:
        """Read and return what has come since the last time."""
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
        """Yield the events of a name that have these facts."""
        wanted = {"event": name, **facts}
        return (event for event in self.seen if wanted.items() <= event.items())

    def last_words(self) -> str:
        """Return why the node says it has ended, or else the last it said of anything."""
        fatal = (event for event in self.seen if event.get("level") == "critical")
        reasons = [str(event.get("exception") or event.get("error") or event.get("event")) for event in fatal]
        return "\n".join(reasons or self.tail)
