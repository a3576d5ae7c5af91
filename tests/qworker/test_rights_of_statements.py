"""Each named statement of the package, run as each kind of role: who may run it is written here, no other may."""

import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.resources import files
from typing import Any

import psycopg
import pytest

from qworker.db.statements import load, numbered
from qworker.migrations import migrate
from qworker.rights import Kind
from qworkerd.embedded import EmbeddedPostgres
from tests import roles
from tests.database import Database

PRODUCER, WORKER, VIEWER, ADMIN = Kind
NOBODY: frozenset[Kind] = frozenset()
ANYBODY = frozenset(Kind)
READERS = frozenset({WORKER, VIEWER, ADMIN})
WRITERS = frozenset({WORKER, ADMIN})
ENQUEUERS = frozenset({PRODUCER, WORKER, ADMIN})
NODES, ADMINS = frozenset({WORKER}), frozenset({ADMIN})

#: Who may run the statements that change something, or that only some may run. A worker changes jobs as an admin does,
#: and the reverse: no privilege distinguishes a claim from the cancellation of a job. All other statements only read.
ALLOWED: dict[str, dict[frozenset[Kind], str]] = {
    "admin": {
        NOBODY: "advance",
        WRITERS: "again cancel discard move retry run_now",
    },
    "audit": {
        WRITERS: "record",
        NODES: "delete_old",
    },
    "claims": {
        WRITERS: "acknowledge claim claim_one first lock lock_claimed progress release snooze",
        NODES: "end fail give_up retry",
    },
    "depth": {NODES: "sample"},
    "doctor_vacuum": {NOBODY: "data_directory wal_size"},  # needs pg_monitor
    "enqueue": {
        WRITERS: (
            "copy copy_ids copy_options copy_options_ids enqueue enqueue_later enqueue_unique "
            "enqueue_unique_many enqueue_with_meta free_key prepared reserve"
        ),
    },
    "error_groups": {WRITERS: "change", NODES: "delete_old fold"},
    "functions": {
        ENQUEUERS: "enqueue",
    },
    "maintenance": {
        NOBODY: "flush",
        WRITERS: (
            "date_failures delete_expired_keys delete_unheld_keys discard_failed end_invalid expire "
            "first_discarded first_due first_expired promote renumber"
        ),
        NODES: "truncate_day",
    },
    "operations": {
        ADMINS: "create",
        WRITERS: "advance lock_next postpone stop unlocked",
        NODES: "delete_old",
    },
    "nodes": {
        WRITERS: "pause",  # a node that registers anew stays paused
        ADMINS: "resume",
    },
    "queues": {
        ADMINS: "pause resume",
    },
    "job_logs": {WRITERS: "request withdraw delete_old", NODES: "store write"},
    "stacks": {WRITERS: "request withdraw delete_old", NODES: "store"},
    "recovery": {
        WRITERS: "first_lost release_claim restart_unclaimed",
        NODES: "delete_dead_node record_crash record_node_loss",
    },
    "registry": {
        NODES: "deregister mark_busy mark_idle poll register renew",
    },
    "rights": {
        WRITERS: "record",
    },
    "schedules": {
        WRITERS: "pause resume run",
        NODES: "declare delete_unused tick",
    },
    "testing": {
        WRITERS: "postpone",
    },
    "tallies": {
        NODES: (
            "add_series delete_old_deployments delete_old_depths delete_old_queues delete_old_series "
            "delete_old_sources delete_old_stats delete_old_totals flush fold fold_flushed fold_queues fold_totals "
            "touch_series"
        ),
    },
    "upkeep": {NODES: "analyze measure"},
}  # fmt: skip

#: Those of the migrator run as the owner; the others are for some versions of the server only.
NOT_RUN = {
    ("migrations", None), ("doctor_vacuum", "checkpoints_14"), ("doctor_vacuum", "checkpoints_17"),
    ("doctor_schema", "collation"),
}  # fmt: skip
#: The beginning of a statement. Others are parts, from which Python makes statements, as are those with a {part}.
_STATEMENT = re.compile(
    r"(?:--.*\n)*(?:SELECT|WITH|INSERT|UPDATE|DELETE|COPY|DO|SET|BEGIN|COMMIT|LISTEN)\b(?!.*\{\w+\})", re.DOTALL
)

#: Values for parameters without which a statement would not come to what it does.
VALUES: dict[str, Any] = {
    "count": "1",
    "done": 1,
    "skipped": 1,
    "failed": 1,
    "names": ["q"],
    "sequence": "qworker.job_seq",
    "number": "1",
    "day": "0",
    "queue": "q",
    "task": "t",
}


def found() -> Iterator[tuple[str, str]]:
    for entry in files("qworker").joinpath("sql", "queries").iterdir():
        area = entry.name.removesuffix(".sql")
        if area != "fragments" and (area, None) not in NOT_RUN:
            for name, statement in load(area).items():
                if _STATEMENT.match(statement) and (area, name) not in NOT_RUN:
                    yield area, name


@pytest.fixture(scope="module")
def sessions(postgres_server: EmbeddedPostgres) -> Iterator[dict[Kind, psycopg.Connection[Any]]]:
    """A session of each kind of role in a database where each table has a row."""
    database = Database.create(postgres_server, f"qworker_{secrets.token_hex(4)}")
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        migrate(conn)
        roles.create(conn)
        conn.execute("INSERT INTO qworker.job (task) VALUES ('t')")
    with ExitStack() as stack:
        yield {
            kind: stack.enter_context(psycopg.connect(roles.login(database.dsn, kind), prepare_threshold=None))
            for kind in Kind
        }
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        roles.drop(conn)
    database.drop(postgres_server)


def may_run(conn: psycopg.Connection[Any], statement: Any) -> bool:
    """Return whether a role may run a statement; the server checks this before anything that it may find wrong."""
    parameters = {name: VALUES.get(name) for name in numbered(statement)[1]}
    problem = ""
    try:
        # A client-side cursor, because a string may contain several commands.
        with psycopg.ClientCursor(conn) as cursor:
            if "FROM STDIN" in statement:
                with cursor.copy(statement):
                    pass
            else:
                cursor.execute(statement, parameters or None)
    except psycopg.errors.InsufficientPrivilege:
        return False
    except psycopg.errors.DataError:
        pass
    except psycopg.errors.IntegrityError:
        pass
    except psycopg.errors.RaiseException:
        pass
    except psycopg.Error as error:
        problem = f"{type(error).__name__}: {error}"
    finally:
        conn.rollback()
    assert not problem, "say in VALUES what this statement needs"
    return True


@pytest.mark.parametrize(("area", "name"), [pytest.param(*pair, id=".".join(pair)) for pair in sorted(found())])
def test_a_statement_runs_as_the_roles_that_need_it_and_as_no_other(
    sessions: dict[Kind, psycopg.Connection[Any]], area: str, name: str
) -> None:
    wanted = [kinds for kinds, names in ALLOWED.get(area, {}).items() if name in names.split()]
    allowed = {kind for kind in Kind if may_run(sessions[kind], load(area)[name])}
    # A producer has no privilege on a table: what it may run reads nothing of qworker.
    assert allowed in (wanted or [READERS, ANYBODY]), "say in ALLOWED who may run a statement that changes something"


def test_nothing_is_allowed_that_does_not_exist() -> None:
    allowed = {(area, name) for area, kinds in ALLOWED.items() for names in kinds.values() for name in names.split()}
    assert allowed <= set(found())
