"""Enqueues many jobs of one task whose unique keys are derived from their arguments, all that are new or none."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import LiteralString

from qworker import clock
from qworker.bulk import MAX_BLOCK_BYTES, MAX_BLOCK_ROWS, Bulk, BulkTransaction
from qworker.db.adapters import Connection, json_in
from qworker.db.errors import suppressed
from qworker.payload import Parameters, Row
from qworker.spec import JobSpec


class UniqueBulk(Bulk):
    """Writes a job for each row whose key no job holds; of rows with the same key, for the first.

    A block of rows is one INSERT, because COPY cannot skip a row. It takes the keys in their order, and waits for those
    that another transaction has taken and not committed. Two bulks of several blocks can deadlock, which PostgreSQL
    reports to one of them.
    """

    def __init__(self, spec: JobSpec, parameters: Parameters, sql: Mapping[str, LiteralString]) -> None:
        super().__init__(spec, parameters, sql)
        refuse_one_key(spec)

    def count(self, conn: Connection, rows: Iterable[Row], *, own: bool) -> int:
        """Return the number of jobs that are new; own: see `Bulk.count`."""
        return len(self.ids(conn, rows, own=own))

    def ids(self, conn: Connection, rows: Iterable[Row], *, own: bool) -> list[int]:
        """Return the ids of the jobs that are new, in the order of their rows; own: see `Bulk.count`."""
        ids: list[int] = []
        with self.begin(conn, rows, own=own) as work:
            texts: list[str] = []
            size = 0
            for line in work.lines.encode(rows):
                texts.append(work.lines.decode_args(line))
                size += len(line)
                if len(texts) >= MAX_BLOCK_ROWS or size >= MAX_BLOCK_BYTES:
                    ids += self._insert(conn, work, texts)
                    texts, size = [], 0
            if texts:
                ids += self._insert(conn, work, texts)
        return ids

    def _insert(self, conn: Connection, work: BulkTransaction, texts: Sequence[str]) -> list[int]:
        work.count += len(texts)
        parameters = {
            **self.spec.parameters,
            "at": clock.at(),
            "texts": [json_in(conn, text) for text in texts],
            "keys": [self.spec.key_of(json.loads(text)) for text in texts],
        }
        new = work.cursor.execute(self.sql["enqueue_unique_many"], parameters).fetchall()
        if lost := sum(not stored for _, stored in new):
            raise suppressed(self.spec.task, lost)
        return [job_id for job_id, _ in new]


def refuse_one_key(spec: JobSpec) -> None:
    """Raise TypeError for a key that all jobs of a bulk would share."""
    if isinstance(spec.unique, str):
        raise TypeError(
            f"enqueue_many: with unique={spec.unique!r} all rows would be one job; pass unique=True, which derives the "
            "key of each from its arguments"
        )
