"""What filters select, without a database: the two must agree. And jobs that show where they do not."""

import random
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from qworker.filters import Filter, Term, Value
from qworker.fingerprint import to_hex

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def matches(wanted: Filter, row: dict[str, Any], nodes: dict[int, str]) -> bool:
    return all(any(_matches(term, value, row, nodes) for value in term.values) != term.negated for term in wanted.terms)


def _matches(term: Term, value: Value, row: dict[str, Any], nodes: dict[int, str]) -> bool:
    operand: Any = value.operand
    last = (row["errors"] or [{}])[-1] if isinstance(row["errors"], list) else {}
    if term.key == "state" and operand == "retrying":
        return bool(row["state"] == "scheduled" and row["attempt"] > 0)
    if term.key == "fp":
        shown = to_hex(row["fingerprint"]) if row["fingerprint"] is not None else None
        return _compares(shown, value.comparison, operand) if shown is not None else False
    if term.key == "message":
        return operand.lower() in (last.get("message") or "").lower() if "message" in last else False
    if term.key == "by":
        return bool(row["is_hook"]) if operand == "hook" else "cron" in (row["meta"] or {})
    if term.key in ("after", "before"):
        return bool((row["enqueued_at"] >= operand) if term.key == "after" else (row["enqueued_at"] < operand))
    found = _found(term, row, last, nodes)
    if term.key == "args" and value.comparison not in "=*":
        found = [Decimal(str(item)) for item in found if isinstance(item, (int, float)) and not isinstance(item, bool)]
    elif term.key == "args":
        found = [_text(item) for item in found if item is not None]
    return any(_compares(item, value.comparison, operand) for item in found if item is not None)


def _found(term: Term, row: dict[str, Any], last: dict[str, Any], nodes: dict[int, str]) -> list[Any]:
    """Return the values of a job that a key means."""
    kind, meta = last.get("type"), row["meta"] or {}
    several: dict[str, list[Any]] = {
        "tag": list(row["tags"] or ()),
        "error": [kind, kind and kind.rpartition(".")[2], last.get("cause")],
        "node": [str(row["node"]), nodes.get(row["node"])] if row["node"] is not None else [],
        "cron": [meta.get("cron")],
        "prio": [row["priority"]],
        "age": [_seconds(row["enqueued_at"], NOW)],
        "finished": [_seconds(row["finished_at"], NOW)],
        "wait": [_waited(row)],
        "run": [_ran(row)],
        "args": [_inside(row["args"], term.path)],
    }
    return several[term.key] if term.key in several else [row[term.key]]


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else (end - begin).total_seconds()


def _waited(row: dict[str, Any]) -> float | None:
    until = NOW if row["state"] in ("available", "scheduled", "blocked") else None
    return _seconds(row["run_at"] or row["enqueued_at"], row["claimed_at"] or until)


def _ran(row: dict[str, Any]) -> float | None:
    if row["state"] not in ("running", "failed"):
        return row["duration"]  # type: ignore[no-any-return]
    return _seconds(row["claimed_at"], NOW if row["state"] == "running" else row["finished_at"])


def _inside(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and re.fullmatch(r"-?\d+", part) and -len(value) <= int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _compares(found: Any, comparison: str, operand: Any) -> bool:
    match comparison:
        case "=":
            return bool(found == operand)
        case "*":
            return str(found).startswith(operand)
        case ">":
            return bool(found > operand)
        case ">=":
            return bool(found >= operand)
        case "<":
            return bool(found < operand)
        case _:
            return bool(found <= operand)


WORDS = [
    "mail",
    "mail.eu",
    "default",
    "shop.send",
    "shop.pay",
    "vip",
    "a b",
    "10",
    "9",
    "'; --",
    "%s",
    "ünlaut",
    "*",
    '"',
]
ERRORS = ["ValueError", "requests.exceptions.Timeout", "WorkerDied", "a.b"]
FINGERPRINTS = [1, 255, -1, 2**63 - 1, -(2**63)]


def random_rows(conn: psycopg.Connection[Any], number: int) -> None:
    """Insert jobs whose columns take each of a few values, and NULL."""
    draw = random.Random(13)
    unfinished, ended_states = ["scheduled", "available", "running", "failed"], ["completed", "cancelled", "discarded"]
    conn.execute("""INSERT INTO qworker.node (id, name, version, queues, worker_count, lease_seconds)
                    VALUES (1, 'web1', '1', '{}', 1, 10), (2, 'web2', '1', '{}', 1, 10)""")
    for job_id in range(1, number + 1):
        ended = draw.random() < 0.5
        state = draw.choice(ended_states if ended else unfinished)
        at = [NOW - timedelta(seconds=draw.choice([5, 60, 3600, 3601, 86_400]) + n) for n in range(4)]
        arguments = draw.choice([
            {}, {"user": {"id": draw.choice([1, 42, "42", 4.5, True, None])}}, {"x": draw.choice(WORDS)},
            {"*": [draw.choice([1, 42, "42"]), {"id": 7}]}, {"x": [1, 2]},
        ])  # fmt: skip
        error: dict[str, str] = draw.choice([{}, {"fingerprint": to_hex(draw.choice(FINGERPRINTS))}])
        error |= {"type": draw.choice(ERRORS), "message": draw.choice(["Connection REFUSED by x", "no"])}
        columns = {
            "id": job_id, "state": state, "queue": draw.choice(WORDS), "task": draw.choice(WORDS),
            "args": Jsonb(arguments),
            "priority": draw.choice([0, 3, 5, -5]), "attempt": draw.choice([0, 1, 4]), "enqueued_at": at[0],
            "claimed_at": draw.choice([at[1], None]), "node": draw.choice([1, 2, 3, None]),
            "errors": draw.choice([
                None, Jsonb([error]), Jsonb([error, error | {"cause": "timeout"}]), Jsonb({"type": "x"}),
            ]),
            "tags": draw.choice([None, [], [draw.choice(WORDS)], ["vip", "test"]]), "is_hook": draw.random() < 0.2,
            "meta": draw.choice([None, Jsonb({}), Jsonb({"cron": "report"})]),
        }  # fmt: skip
        if ended:
            columns |= {"finished_at": at[2], "duration": draw.choice([None, 0.5, 45.0]), "ring_day": 1, "crashes": 0,
                        "node_losses": 0}  # fmt: skip
        else:
            columns |= {"run_at": at[3] if state == "scheduled" else draw.choice([at[3], None])}
            columns |= {"failed_at": at[2]} if state == "failed" else {}
            columns |= {"fingerprint": draw.choice([None, *FINGERPRINTS])}
        table = "job_history" if ended else "job"
        conn.execute(
            f"INSERT INTO qworker.{table} ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})",  # noqa: S608
            list(columns.values()),
        )
