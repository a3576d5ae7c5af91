"""Records what would be enqueued: for unit tests without a database."""

import itertools
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from qworker import App, Job, clock
from qworker.job import JobState, new_job
from qworker.options import UNSET
from qworker.payload import Parameters, Row, encode
from qworker.spec import JobSpec
from qworker.task import Enqueuing


class MockQueue:
    """Takes the place of the database inside a `with` block; nothing is connected.

    Arguments are bound to the signature, validated, and stored as JSON, like those of every job. Nothing is run,
    unique keys are not compared, and connections passed to `using` are ignored. `assert_enqueued` and its siblings look
    at what was recorded.
    """

    def __init__(self, app: App) -> None:
        #: The jobs that were enqueued, oldest first.
        self.jobs: list[Job] = []
        self._app = app
        self._ids = itertools.count(1)
        self._before: list[Enqueuing] = []

    def __enter__(self) -> Self:
        self._before.append(self._app.replace_enqueuing(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._app.replace_enqueuing(self._before.pop())

    def one(self, spec: JobSpec, args: Mapping[str, Any], conn: Any = UNSET) -> Job:  # noqa: ARG002
        """Record a job."""
        return self._record(spec, encode(args))

    async def aone(self, spec: JobSpec, args: Mapping[str, Any], conn: Any = UNSET) -> Job:
        """Record a job."""
        return self.one(spec, args, conn)

    def many(
        self,
        spec: JobSpec,
        parameters: Parameters,
        rows: Iterable[Row],
        conn: Any = UNSET,  # noqa: ARG002
        *,
        ids: bool = False,
    ) -> int | list[int]:
        """Record a job for each row, all or none."""
        bound = [
            parameters.bind((), row) if isinstance(row, Mapping) else parameters.bind(row, {}) for row in list(rows)
        ]
        made = [self._record(spec, text).id for text in [encode(args) for args in bound]]
        return made if ids else len(made)

    def clear(self) -> None:
        """Forget the recorded jobs."""
        self.jobs.clear()

    def _record(self, spec: JobSpec, text: str) -> Job:
        now = datetime.now(UTC)
        moved = now + timedelta(seconds=clock.offset())
        start = spec.run_at if spec.delay is None else moved + timedelta(seconds=spec.delay)
        later = start is not None and start > moved
        job = new_job(
            id=next(self._ids), state=JobState.SCHEDULED if later else JobState.AVAILABLE, queue=spec.queue,
            priority=spec.priority, task=spec.task, args=json.loads(text), enqueued_at=now,
            run_at=start if later else None, tags=spec.tags or (),
        )  # fmt: skip
        self.jobs.append(job)
        return job
