"""Threads beside that of the screen: one that reads frames, and one for each action.

They are daemons: a server that does not answer must not keep the program from ending.
"""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread

from qworkerd.top.reading import Frame, Query, Reader

#: Receives a frame, or the error of reading it.
Receive = Callable[[Query, Frame | BaseException], object]


class ReadingThread:
    """Reads the newest query that was requested; older ones that are still waiting are skipped."""

    def __init__(self, reader: Reader, receive: Receive) -> None:
        self._reader = reader
        self._receive = receive
        self._queries = SimpleQueue[Query | None]()
        self._thread = Thread(target=self._run, name="qworker-top-reader", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def request(self, query: Query) -> None:
        """Have a frame read; it is passed to `receive` in the thread."""
        self._queries.put(query)

    def stop(self) -> None:
        """Have the thread end after the frame that it reads."""
        self._queries.put(None)

    def _run(self) -> None:
        while (query := self._newest()) is not None:
            try:
                found: Frame | BaseException = self._reader.read(query)
            except Exception as error:  # noqa: BLE001 - the thread must survive whatever a row or a server causes
                found = error
            self._receive(query, found)
        self._reader.close()

    def _newest(self) -> Query | None:
        query = self._queries.get()
        while query is not None:
            try:
                query = self._queries.get_nowait()
            except Empty:
                break
        return query


def run(function: Callable[[], object]) -> None:
    """Run a function in a thread of its own; it passes on its result itself."""
    Thread(target=function, name="qworker-top-action", daemon=True).start()
