"""Makes of a bulk's rows the lines that COPY reads."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from qworker.db.arrays import text_array
from qworker.errors import PayloadTooLarge
from qworker.payload import Parameters, Row, brief, encode, encode_plain
from qworker.spec import JobSpec

#: Characters of the message about a row.
MAX_MESSAGE = 2_000

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class CopyLines:
    """Lines for the jobs of one order, as of one moment of the server's clock."""

    def __init__(self, spec: JobSpec, parameters: Parameters, now: float) -> None:
        self._spec = spec
        self._parameters = parameters
        now_utc = datetime.fromtimestamp(now, UTC)
        start = spec.run_at if spec.delay is None else now_utc + timedelta(seconds=spec.delay)
        #: When the jobs may start; None: at once.
        self.start = start if start and start > now_utc else None
        #: Whether the lines have the columns of options as well: state, run_at, expires_at, overrides, tags.
        self.optional = False
        self._tail = self._format_options(now_utc)

    def encode(self, rows: Iterable[Row], first: int = 0) -> Iterator[str]:
        """Make a line of each row; an error names the row's index, which is counted from `first`."""
        bind, tail = self._parameters.bind, self._tail
        for at, row in enumerate(rows, first):
            try:
                if isinstance(row, tuple | list):
                    text = encode(bind(row, {}))
                elif isinstance(row, Mapping):
                    text = encode(bind((), row))
                else:
                    raise TypeError(f"a job's arguments are a tuple, a list or a dict, not {brief(repr(row))}")  # noqa: TRY301
            except (TypeError, ValueError) as error:
                kind = next(kind for kind in (PayloadTooLarge, TypeError, ValueError) if isinstance(error, kind))
                raise kind(brief(f"row {at}: {error}", MAX_MESSAGE)) from None
            # JSON escapes every other character that COPY minds.
            yield text.replace("\\", "\\\\") + tail

    def encode_plain(self, rows: Iterable[Row]) -> Iterator[str]:
        """Make a line of each row up to the first that is not plain, without calling anybody else's code.

        Plain are rows of the built-in types that every task stores; for all others there is `of`.
        """
        bind, tail = self._parameters.bind_plain, self._tail
        for row in rows:
            args = bind(row)
            text = None if args is None else encode_plain(args)
            if text is None:
                return
            yield text.replace("\\", "\\\\") + tail

    def decode_args(self, line: str) -> str:
        """Return the arguments of a line, as JSON text."""
        return line[: -len(self._tail)].replace("\\\\", "\\")

    def _format_options(self, now: datetime) -> str:
        spec, start = self._spec, self.start
        expires = now + timedelta(seconds=spec.expires) if isinstance(spec.expires, float) else spec.expires
        fields: list[str | None] = [spec.task, spec.queue, str(spec.priority)]
        options = (
            start.isoformat() if start else None,
            expires.isoformat() if expires else None,
            spec.overrides,
            None if spec.tags is None else text_array(spec.tags),
        )
        self.optional = any(option is not None for option in options)
        if self.optional:
            fields += ["scheduled" if start else "available", *options]
        return "".join("\t" + ("\\N" if field is None else field.translate(_ESCAPES)) for field in fields) + "\n"
