"""The SQL function `enqueue`, for psql, triggers and other languages."""

import psycopg
import pytest

from qworker import App, JobState
from qworker.payload import MAX_ARGS
from qworker.registry import Registry
from tests.database import Database
from tests.qworker.conftest import Query

ROW = "SELECT task, args, queue, priority, state::text, run_at, tags, holds_key, attempt FROM qworker.job"


def test_only_the_task_must_be_given(query: Query) -> None:
    ((job_id,),) = query("SELECT qworker.enqueue('send')")
    assert query(ROW + " WHERE id = %s", job_id) == [("send", {}, "default", 5, "available", None, None, False, 0)]


def test_everything_can_be_given_by_name(app: App, query: Query) -> None:
    ((job_id,),) = query(
        "SELECT qworker.enqueue(task => 'send', args => '{\"user_id\": 7}', queue => 'emails', priority => 0,"
        " run_at => clock_timestamp() + interval '1 hour', tags => '{a,b}')"
    )
    job = app.job(job_id)
    assert (job.task, job.args, job.queue, job.priority, job.state, job.tags) == (
        "send", {"user_id": 7}, "emails", 0, JobState.SCHEDULED, ("a", "b"),
    )  # fmt: skip
    assert job.run_at is not None


@pytest.mark.parametrize("priority", [-95, 105])
def test_with_meta_it_takes_the_priorities_of_djangos_tasks(query: Query, priority: int) -> None:
    query("SELECT qworker.enqueue('send', priority => %s, meta => '{\"run_after\": \"x\"}')", priority)
    assert query("SELECT priority, meta FROM qworker.job") == [(priority, {"run_after": "x"})]


def test_a_time_that_has_come_is_now(query: Query) -> None:
    query("SELECT qworker.enqueue('send', run_at => '2020-01-01Z')")
    assert query("SELECT state::text, run_at FROM qworker.job") == [("available", None)]


def test_an_array_holds_positional_arguments(app: App, query: Query) -> None:
    @app.task(name="send")
    def send(user_id: int, text: str) -> str:
        return f"{user_id} {text}"

    ((job_id,),) = query("""SELECT qworker.enqueue('send', '[7, "hi"]')""")
    args = dict(app.job(job_id).args)
    assert args == {"*": [7, "hi"]}
    assert send.handler(*args.pop("*", ()), **args) == "7 hi"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("NULL", "task must be the name of a task"),
        ("''", "task must be the name of a task"),
        ("'t', 'null'", "args must be a JSON object (by name) or array (by position), not null"),
        ("'t', '5'", "not number"),
        ("'t', NULL", "not NULL"),
        ("'t', queue => ''", "queue must not be empty"),
        ("'t', queue => NULL", "queue must not be empty"),
        ("'t', priority => 10", "priority must be between 0 (first) and 9, not 10"),
        ("'t', priority => -1", "not -1"),
        ("'t', priority => NULL", "not NULL"),
        ("'t', priority => 10", "with meta, between -95 and 105"),
        ("'t', priority => 106, meta => '{}'", "priority must be between -95 (first) and 105, not 106"),
        ("'t', priority => -96, meta => '{}'", "not -96"),
        ("'t', priority => NULL, meta => '{}'", "not NULL"),
        ("'t', meta => '[]'", "meta must be NULL or a JSON object of at most 10000 bytes, not array of 2 bytes"),
        ("'t', meta => 'null'", "not null of 4 bytes"),
        ("'t', meta => jsonb_build_object('a', repeat('x', 10000))", "not object of 10009 bytes"),
        ("repeat('t', 201)", "at most 200 characters, not 201"),
        ("'t', queue => repeat('q', 201)", "at most 200 characters, not 1 and 201"),
        ("E't\\x1b[2J'", 'printable characters, not "t\\u001b[2J"'),
        ("'t', queue => E'q\\n'", 'printable characters, not "t" and "q\\n"'),
        ("'t', queue => E'q\\u00a0'", "printable characters"),
        ("'t', queue => E'q\\u202e'", "printable characters"),
        ("'t', queue => ' q'", "begin or end with a blank"),
        ("'t', tags => '{\"\"}'", "tags must be at most 50 strings of 1 to 200 printable characters"),
        ("'t', tags => ARRAY[E'a\\tb']", "tags must be at most 50 strings"),
        ("'t', tags => ARRAY[repeat('x', 201)]", "tags must be at most 50 strings"),
        ("'t', tags => array_fill('x'::text, ARRAY[51])", "tags must be at most 50 strings"),
        ("'t', tags => ARRAY[NULL]", "tags must be at most 50 strings"),
        ("'t', tags => '{{a},{b}}'", "tags must be at most 50 strings"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_value(query: Query, call: str, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        query(f"SELECT qworker.enqueue({call})")
    assert caught.value.diag.message_primary is not None
    assert caught.value.diag.message_primary.startswith("qworker: ")
    assert message in caught.value.diag.message_primary


def test_the_limit_of_arguments_holds_here_too(query: Query) -> None:
    overhead = len('{"a": ""}')
    call = "SELECT qworker.enqueue('t', jsonb_build_object('a', repeat('x', %s)))"
    query(call, MAX_ARGS - overhead)
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="args has 262145 bytes, more than 262144"):
        query(call, MAX_ARGS - overhead + 1)


def test_it_belongs_to_the_callers_transaction(database: Database, query: Query) -> None:
    conn = database.connect(autocommit=False)
    conn.execute("SELECT qworker.enqueue('send')")
    conn.rollback()
    assert query("SELECT count(*) FROM qworker.job") == [(0,)]


@pytest.mark.parametrize("path", ["", "pg_temp", "public"])
def test_the_callers_search_path_does_not_matter(database: Database, path: str) -> None:
    conn = database.connect()
    conn.execute("SELECT set_config('search_path', %s, false)", [path])
    conn.execute("SELECT qworker.enqueue('send', run_at => now() + interval '1 day')")
    conn.execute("SELECT qworker.enqueue('send')")


def test_it_wakes_a_sleeping_node_for_jobs_that_may_start(database: Database, query: Query) -> None:
    conn = database.connect()
    conn.execute("LISTEN qworker")
    query("SELECT qworker.enqueue('send')")
    node = Registry().register(conn, name="n", version="1", queues=["q"], worker_count=1, lease_seconds=30.0)
    Registry().set_idle(conn, node, idle=True)
    query("SELECT qworker.enqueue('send')")
    query("SELECT qworker.enqueue('send', queue => 'q', run_at => clock_timestamp() + interval '1 day')")
    query("SELECT qworker.enqueue('send', queue => 'q')")
    assert [notify.payload for notify in conn.notifies(timeout=5, stop_after=1)] == ["q"]
    assert list(conn.notifies(timeout=0)) == []


def test_triggers_can_call_it(database: Database, query: Query) -> None:
    conn = database.connect()
    conn.execute("CREATE TEMP TABLE orders (id int)")
    conn.execute(
        "CREATE FUNCTION pg_temp.on_order() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM qworker.enqueue('order', jsonb_build_object('id', NEW.id)); RETURN NEW; END $$"
    )
    conn.execute("CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION pg_temp.on_order()")
    conn.execute("INSERT INTO orders SELECT generate_series(1, 3)")
    assert query("SELECT args FROM qworker.job ORDER BY id") == [({"id": 1},), ({"id": 2},), ({"id": 3},)]


@pytest.mark.parametrize("queue", ["a,b", " a", "a ", ","])
def test_a_queue_that_no_node_could_be_notified_of_is_refused(query: Query, queue: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="queue must not contain a comma"):
        query("SELECT qworker.enqueue('send', queue => %s)", queue)


def test_names_in_any_script_are_names(query: Query) -> None:
    task, queue, tag = "t \u00e9 \u4e2d\u6587", "q\u00fc \u0416", "\U0001f600"
    query("SELECT qworker.enqueue(%s, queue => %s, tags => ARRAY[%s])", task, queue, tag)
    assert query("SELECT task, queue, tags FROM qworker.job") == [(task, queue, [tag])]


def test_arguments_that_are_stored_compressed_are_bounded_by_their_text(database: Database) -> None:
    """A value of another table comes as it lies there: 290 bytes may be a text of 100 MB."""
    conn = database.connect()
    conn.execute("CREATE TEMP TABLE source (a jsonb)")
    conn.execute(
        "INSERT INTO source SELECT jsonb_build_object('x', (SELECT jsonb_agg('1e131071'::numeric)"
        " FROM generate_series(1, 700)))"
    )
    ((size, method),) = conn.execute("SELECT pg_column_size(a), pg_column_compression(a) FROM source").fetchall()
    assert (size <= 300, method) == (True, "pglz")
    with pytest.raises(psycopg.errors.CheckViolation, match="job_args"):
        conn.execute("INSERT INTO qworker.job (task, args) SELECT 't', a FROM source")
