"""Logging: each event is one line on standard error, with the context of the running job and without secrets."""

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from time import monotonic
from types import TracebackType
from typing import Final

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from qworker.context import running
from qworkerd.log.job_lines import job_lines
from qworkerd.log.redaction import describe, redact_value, register_secret
from qworkerd.log.render import as_json, as_text, traceback_of
from qworkerd.log.writer import Writer

__all__ = ["bind_process", "configure", "count_events", "get", "is_console", "register_secret"]

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_SYNONYMS: Final = {"exception": "error", "warn": "warning", "fatal": "critical", "msg": "info"}
#: The logger to which failed attempts are reported (`reports`). The pipeline drops them: it has events for them.
ATTEMPTS: Final = "qworker.job"
_RECORD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName"}

#: The names of our own events. What else is logged is not a name, and may contain anything.
_EVENT: Final = re.compile(r"[a-z_]{1,24}\.[a-z_]{1,32}", re.ASCII)
#: The events of these levels are counted.
COUNTED: Final = frozenset({"warning", "error", "critical"})

_process: dict[str, object] = {}
_counting: Callable[[str, str], object] | None = None
_writer = Writer(2)


def configure(format: str = "auto", level: str = "info") -> None:  # noqa: A002 - the setting's name
    """Send everything that this process logs, by structlog or the standard library, through one pipeline.

    Call it before the application is imported and again afterwards, because an application may configure logging itself
    (as Django does). Handlers of the root logger that write to the terminal are removed; all others are kept.
    """
    global _writer  # noqa: PLW0603 - standard error is one for the process, and may have been redirected
    _writer = Writer(2)
    pipeline = _Pipeline(as_text if is_console(format) else as_json)
    structlog.configure(
        processors=[pipeline],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_LineLogger,
        cache_logger_on_first_use=False,
    )
    _route(LEVELS[level], pipeline)
    sys.excepthook = _process_died
    threading.excepthook = _thread_died
    sys.unraisablehook = _unraisable


def is_console(format: str = "auto") -> bool:  # noqa: A002
    """Return whether events are formatted for people, not as JSON."""
    return format == "console" or (format == "auto" and os.isatty(2))


def get() -> FilteringBoundLogger:
    """Return a logger; it follows later calls of `configure`."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def bind_process(**context: object) -> None:
    """Add fields to every line of this process and of the children that it forks: role, worker.

    None removes a field.
    """
    for key, value in context.items():
        if value is None:
            _process.pop(key, None)
        else:
            _process[key] = value


def count_events(count: Callable[[str, str], object] | None) -> None:
    """Call a function with the level and the name of each event that this process logs as a warning or above."""
    global _counting  # noqa: PLW0603 - the pipeline is one for the process
    _counting = count


def _count(complete: dict[str, object]) -> None:
    level, event = str(complete["level"]), str(complete["event"])
    if _counting is not None and level in COUNTED:
        ours = "logger" not in complete and _EVENT.fullmatch(event)
        _counting(level, event if ours else "(other)")


class _LineLogger:
    """The logger that structlog calls with the finished line, at every level."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, line: bytes) -> None:
        """Write the line."""
        _writer.write(line)

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


class _Pipeline:
    """Turns an event into a line: adds the context, removes secrets, renders it."""

    def __init__(self, render: Callable[[dict[str, object], int], bytes]) -> None:
        self._render = render

    def __call__(self, _: WrappedLogger, method: str, event: EventDict) -> tuple[tuple[bytes], dict[str, object]]:
        """Render an event, as the last processor of structlog."""
        return (self.line(method, event),), {}

    def line(self, level: str, event: MutableMapping[str, object]) -> bytes:
        """Return the event as a line of bytes."""
        try:
            complete = _complete(level, event)
            _count(complete)
            job = running.get() if job_lines.enabled else None
            if self._render is as_json:
                line = as_json(complete, _writer.max_line())
                if job is not None:
                    job_lines.add(job, complete, line)
                return line
            if job is not None:
                job_lines.add(job, complete)
            return self._render(complete, _writer.max_line())
        # A log call must not raise an error in its caller; the repr of an object, for example, may raise one.
        except Exception as error:  # noqa: BLE001
            return as_json({"level": "error", "event": "log.failed", "error": type(error).__name__}, _writer.max_line())


class _Handler(logging.Handler):
    """Receives the standard library's records without a lock, because a line is a single write.

    A lock would stay held if an interrupt arrived during a log call, or if another thread forked.
    """

    def __init__(self, level: int, pipeline: _Pipeline) -> None:
        super().__init__(level)
        self._pipeline = pipeline

    def createLock(self) -> None:  # noqa: N802 - the standard library's spelling
        """Create no lock."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and emit."""
        if record.name == ATTEMPTS:
            return False
        # Since Python 3.12 a filter may return a replacement record instead of true.
        wanted: object = self.filter(record)
        if wanted:
            self.emit(wanted if isinstance(wanted, logging.LogRecord) else record)
        return bool(wanted)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as an event; the values of `extra` become keys."""
        event: dict[str, object] = {"event": _text(record), "logger": record.name}
        event.update((key, value) for key, value in vars(record).items() if key not in _RECORD_FIELDS)
        event["exc_info"] = record.exc_info
        if record.stack_info:
            event["stack"] = record.stack_info
        level = next((name for name, number in reversed(LEVELS.items()) if number <= record.levelno), "debug")
        _writer.write(self._pipeline.line(level, event))


def _complete(method: str, given: MutableMapping[str, object]) -> dict[str, object]:
    """Return the event with its time, job and process, in the order in which they are written."""
    event: dict[str, object] = {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": _SYNONYMS.get(method, method),
        "event": given.pop("event", ""),
    }
    exception = traceback_of(given.pop("exc_info", None))
    event.update((key, value) for key, value in given.items() if key not in event)
    job = running.get()
    if job is not None:
        event.setdefault("job", job.id)
        event.setdefault("task", job.task)
        event.setdefault("attempt", job.attempt)
        event.setdefault("queue", job.queue)
        event.setdefault("duration", round(monotonic() - job.started, 3))
        if (trace := getattr(job, "trace", None)) is not None:
            _, trace_id, span_id, _ = trace.split("-")
            event.setdefault("trace_id", trace_id)
            event.setdefault("span_id", span_id)
    for key, value in _process.items():
        event.setdefault(key, value)
    event.setdefault("pid", os.getpid())
    if _writer.dropped:
        event["dropped"] = _writer.dropped
    if exception:
        event["exception"] = exception
    return {str(key): redact_value(value, str(key)) for key, value in event.items()}


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    # As in the standard library: arguments that do not match the message must not raise an error in the caller.
    except Exception:  # noqa: BLE001
        values = record.args if isinstance(record.args, tuple) else (record.args,)
        return " ".join(map(describe, (record.msg, *values)))


def _route(level: int, pipeline: _Pipeline) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Handler) or _to_terminal(handler):
            root.removeHandler(handler)
    root.addHandler(_Handler(level, pipeline))
    # The application may have set a lower level for its own handler.
    root.setLevel(min(root.level, level))
    logging.captureWarnings(True)


def _to_terminal(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr)


def _process_died(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, frames)
    else:
        get().critical("process.died", exc_info=error)


def _thread_died(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        name = args.thread.name if args.thread else None
        get().error("thread.died", thread=name, exc_info=args.exc_value)


def _unraisable(args: "sys.UnraisableHookArgs") -> None:
    get().error("exception.ignored", where=describe(args.object), exc_info=args.exc_value)
