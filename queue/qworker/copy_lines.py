"""Formats rows of arguments as lines for COPY."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from qworker.db.arrays import text_array
from qworker.errors import InvalidPayload, PayloadTooLarge
from qworker.job import JobState
from qworker.payload import Parameters, Row, encode, encode_plain, truncate
from qworker.spec import JobSpec

#: Maximum length of the error message about a row, in characters.
MAX_MESSAGE = 2_000

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class CopyLines:
    """Formats lines for jobs of one spec; delays are relative to one reading of the server's clock."""

    def __init__(self, spec: JobSpec, parameters: Parameters, now: float) -> None:
        self._spec = spec
        self._parameters = parameters
        now_utc = datetime.fromtimestamp(now, UTC)
        start = spec.run_at if spec.delay is None else now_utc + timedelta(seconds=spec.delay)
        #: When the jobs may start; None if at once.
        self.start = start if start and start > now_utc else None
        #: Whether the lines contain the optional columns: state, run_at, expires_at, overrides, tags, meta.
        self.optional = False
        self._tail = self._format_options(now_utc)

    def encode(self, rows: Iterable[Row], first: int = 0) -> Iterator[str]:
        """Yield a line for each row. An error names the index of the row, counted from `first`."""
        bind, tail = self._parameters.bind, self._tail
        for at, row in enumerate(rows, first):
            try:
                if isinstance(row, tuple | list):
                    text = encode(bind(row, {}))
                elif isinstance(row, Mapping):
                    text = encode(bind((), row))
                else:
                    raise TypeError(f"a row must be a tuple, a list or a dict, not {truncate(repr(row))}")  # noqa: TRY301
            except InvalidPayload as error:
                raise InvalidPayload(f"row {at}: {error.what}", error.problems) from None
            except (TypeError, ValueError) as error:
                kind = next(kind for kind in (PayloadTooLarge, TypeError, ValueError) if isinstance(error, kind))
                raise kind(truncate(f"row {at}: {error}", MAX_MESSAGE)) from None
            # JSON already escapes all other characters that are special in COPY.
            yield text.replace("\\", "\\\\") + tail

    def encode_plain(self, rows: Iterable[Row]) -> Iterator[str]:
        """Yield a line for each row up to the first that is not plain, without calling the caller's code.

        A row is plain if it consists of built-in types and matches a simple signature. Use `encode` for the others.
        """
        bind, tail = self._parameters.bind_plain, self._tail
        for row in rows:
            args = bind(row)
            text = None if args is None else encode_plain(args)
            if text is None:
                return
            yield text.replace("\\", "\\\\") + tail

    def decode_args(self, line: str) -> str:
        """Return the arguments of a line as JSON text."""
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
            spec.meta if spec.keeps_meta else None,
        )
        self.optional = any(option is not None for option in options)
        if self.optional:
            fields += [JobState.SCHEDULED if start else JobState.AVAILABLE, *options]
        return "".join("\t" + ("\\N" if field is None else field.translate(_ESCAPES)) for field in fields) + "\n"
