"""Makes of a bulk's rows the lines that COPY reads."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from qworker.db.arrays import of_texts
from qworker.errors import PayloadTooLarge
from qworker.payload import Parameters, Row, brief, encode, encode_plain
from qworker.spec import JobSpec

#: Characters of the message about a row.
MESSAGE = 2_000

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class Lines:
    """Lines for the jobs of one order, as of one moment of the server's clock."""

    def __init__(self, spec: JobSpec, parameters: Parameters, now: float) -> None:
        self._spec = spec
        self._parameters = parameters
        moment = datetime.fromtimestamp(now, UTC)
        start = spec.run_at if spec.delay is None else moment + timedelta(seconds=spec.delay)
        #: When the jobs may start; None: at once.
        self.start = start if start and start > moment else None
        #: Whether the lines have the columns of options as well: state, run_at, expires_at, overrides, tags.
        self.optional = False
        self._tail = self._written(moment)

    def of(self, rows: Iterable[Row], first: int = 0) -> Iterator[str]:
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
                raise kind(brief(f"row {at}: {error}", MESSAGE)) from None
            # JSON escapes every other character that COPY minds.
            yield text.replace("\\", "\\\\") + tail

    def plain(self, rows: Iterable[Row]) -> Iterator[str]:
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

    def text(self, line: str) -> str:
        """Return the arguments of a line, as JSON text."""
        return line[: -len(self._tail)].replace("\\\\", "\\")

    def _written(self, now: datetime) -> str:
        order, start = self._spec, self.start
        expires = now + timedelta(seconds=order.expires) if isinstance(order.expires, float) else order.expires
        fields: list[str | None] = [order.task, order.queue, str(order.priority)]
        options = (
            start.isoformat() if start else None,
            expires.isoformat() if expires else None,
            order.overrides,
            None if order.tags is None else of_texts(order.tags),
        )
        self.optional = any(option is not None for option in options)
        if self.optional:
            fields += ["scheduled" if start else "available", *options]
        return "".join("\t" + ("\\N" if field is None else field.translate(_ESCAPES)) for field in fields) + "\n"
