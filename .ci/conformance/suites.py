"""Run tests that others wrote for Django's tasks against qworker's backend; `run.py` calls this in an environment.

    python .ci/conformance/suites.py --django-tests DIR --db-tests FILE --rq-tests FILE [-k PATTERN] [-v 2] [--list]

--django-tests  `tests/` of Django's source distribution; its `tasks/` is what counts
--db-tests      `tests/tests.py` of that of django-tasks-db (0.13 or newer, written for Django's own tasks)
--rq-tests      `tests/tests.py` of that of django-tasks-rq

No test is changed. What a test module calls DummyBackend, ImmediateBackend, DatabaseBackend or RQBackend is replaced by
the class under test before its TestCases are subclassed. TASKS settings that name those classes are rewritten, and a
TestCase for which Django forbids queries gets them back. Tests of another backend's private parts are listed in
NOT_PORTABLE, each with its reason, and are reported as left out.
"""

import argparse
import asyncio
import re
import sys
import types
import unittest
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent

# What cannot be asked of another backend
NOT_PORTABLE = {
    # Django: django/tests/tasks
    "DjangoDummy.test_refresh_result": "changes an element of the dummy's list behind its back",
    "DjangoDummy.test_refresh_result_async": "changes an element of the dummy's list behind its back",
    "DjangoImmediate.test_cannot_get_result": "asserts that the immediate backend can NOT do it",
    "DjangoImmediate.test_cannot_refresh_result": "asserts that the immediate backend can NOT do it",
    "DjangoImmediate.test_cannot_pass_run_after": "asserts that the immediate backend can NOT do it",
    "DjangoImmediate.test_throws_keyboard_interrupt": "Ctrl-C of the immediate backend; a worker decides for itself",
    # django-tasks-rq
    "TasksRq.test_check": "RQ",
    "TasksRq.test_rq_app_missing": "RQ",
    "TasksRq.test_queue_isolation": "RQ",
    "TasksRq.test_uses_rq_queues_for_queue_names": "RQ",
    "TasksRq.test_unknown_queue_name": "RQ",
    "TasksRq.test_invalid_task_path": "RQ",
    "TasksRq.test_exception_classes_pop_empty_list_bug": "RQ",
    "TasksRq.test_complex_return_value": "asserts RQ's own text for it",
    # django-tasks-db
    "TasksDb.test_invalid_task_path": "writes a row of its model",
    "TasksDb.test_missing_task_path": "writes a row of its model",
    "TasksDb.test_task_name": "its model",
    "TasksDb.test_database_backend_app_missing": "its name in INSTALLED_APPS",
    "TasksDb.test_priority_range_check": "its model",
    "TasksDb.test_index_scan_for_ready": "its index",
    "TasksDb.test_run_after_tz": "its model",
    "TasksDb.test_run_after_null_0016_migration": "its migration",
    "TasksDb.test_refresh_result": "writes a row of its model",
    "TasksDb.test_refresh_result_async": "writes a row of its model",
    **{
        f"TasksDb.test_{n}": "its id_function"
        for n in (
            "custom_id_function",
            "unknown_id_function",
            "postgres_db_id_function",
            "postgres_id_function_expression",
        )
    },
    **{
        f"TasksDbWorker.test_{n}": "the command line of its worker"
        for n in (
            "unknown_backend",
            "incorrect_backend",
            "negative_interval",
            "infinite_interval",
            "fractional_interval",
            "zero_interval",
            "negative_max_tasks",
            "zero_max_tasks",
            "too_long_worker_id",
            "empty_worker_id",
            "verbose_logging",
            "max_tasks",
            "process_all_queues_excluding_one_queue",
            "exclude_queues_requires_processing_all_queues",
            "excluding_unknown_queue_processes_selected_queues",
        )
    },
    **{
        f"TasksDbWorker.test_{n}": "writes rows of its model"
        for n in (
            "invalid_task_path",
            "missing_task_path",
            "task_import_string",
            "worker_with_locked_rows",
            "run_after",
        )
    },
    "TasksDbWorker.test_complex_return_value": "wants 'is not JSON serializable' where Django's own suite wants "
    "'Unsupported type'",
    "TasksDbWorker.test_run_after_priority": "compares the order of its table, future jobs among the due ones",
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--django-tests", required=True, type=Path)
    parser.add_argument("--db-tests", required=True, type=Path)
    parser.add_argument("--rq-tests", required=True, type=Path)
    parser.add_argument("-k", action="append", default=[])
    parser.add_argument("-v", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


ARGS = arguments()
# Django's tests are `tasks.test_tasks`, their tasks `tasks.tasks`.
sys.path[:0] = [str(ARGS.django_tests.resolve()), str(HERE)]
sys.modules.setdefault("suites", sys.modules["__main__"])  # one module, also by its own name

import candidate
from django.conf import settings

settings.configure(
    SECRET_KEY="conformance",
    USE_TZ=True,
    LOGGING_CONFIG=None,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", *candidate.APPS],
    DATABASES=candidate.DATABASES,
    TASKS={"default": {"BACKEND": candidate.BACKEND, "QUEUES": []}},
)
import django

django.setup()

from asgiref.sync import sync_to_async
from django.db import connections
from django.tasks import TaskResultStatus, default_task_backend
from django.test import SimpleTestCase, TransactionTestCase, override_settings
from django.test.utils import get_runner
from django.utils import timezone
from django.utils.module_loading import import_string

Backend = import_string(candidate.BACKEND)


def aside(call):
    """Call it; in a thread of its own where an event loop runs, for there Django's ORM refuses to work."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    return in_thread(call)


def in_thread(call):
    def run():
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


# The backend under test, with the two handles that Django's tests ask of a dummy
class Candidate(Backend):
    @property
    def results(self):
        return aside(lambda: [self.get_result(id) for id in candidate.ids()])

    def clear(self):
        candidate.clear()


class Executed(Candidate):
    """Looks like the immediate backend: what is enqueued has run when enqueue() returns."""

    def enqueue(self, task, args, kwargs):
        result = super().enqueue(task, args, kwargs)
        candidate.drain()
        return super().get_result(result.id)

    async def aenqueue(self, task, args, kwargs):
        result = await sync_to_async(super().enqueue, thread_sensitive=True)(task, args, kwargs)
        await sync_to_async(candidate.drain, thread_sensitive=True)()
        return await super().aget_result(result.id)


def path(cls):
    return f"suites.{cls.__name__}"


def rewriting(classes):
    """Django's override_settings, with the class under test instead of the ones that a test's TASKS name."""

    def rewrite(tasks):
        return {
            alias: {**params, "BACKEND": path(classes[params["BACKEND"]])}
            if params.get("BACKEND") in classes
            else params
            for alias, params in tasks.items()
        }

    def replacement(**named):
        if "TASKS" in named:
            named["TASKS"] = rewrite(named["TASKS"])
        return override_settings(**named)

    return replacement


# Suites
def adopt(name, original, tasks, extra=None):
    """Subclass a TestCase that somebody else wrote."""
    # SimpleTestCase forbids queries. A backend that lives in a database has to make them, and its jobs have to go
    # afterwards.
    bases = (original,) if issubclass(original, TransactionTestCase) else (original, TransactionTestCase)

    def setUp(self):
        candidate.clear()
        super(made, self).setUp()

    body = {"databases": "__all__", "available_apps": None, "setUp": setUp, "__module__": name, **(extra or {})}
    for test in [t for t in dir(original) if t.startswith("test_")]:
        if reason := NOT_PORTABLE.get(f"{name}.{test}"):
            body[test] = unittest.skip(reason)(getattr(original, test))
    made = type(name, bases, body)
    return override_settings(TASKS=tasks, USE_TZ=True)(made)


def tasks_for(cls, queues, **more):
    return {"default": {"BACKEND": path(cls), "QUEUES": queues}, **more}


def django_suites():
    import tasks.test_dummy_backend as dummy
    import tasks.test_immediate_backend as immediate
    import tasks.test_tasks as api

    named = {
        "django.tasks.backends.dummy.DummyBackend": Candidate,
        "django.tasks.backends.immediate.ImmediateBackend": Executed,
    }
    api.DummyBackend = dummy.DummyBackend = Candidate
    dummy.override_settings = immediate.override_settings = rewriting(named)
    yield adopt(
        "DjangoApi",
        api.TaskTestCase,
        tasks_for(
            Candidate,
            ["default", "queue_1"],
            immediate={"BACKEND": "django.tasks.backends.immediate.ImmediateBackend", "QUEUES": []},
            missing={"BACKEND": "does.not.exist"},
        ),
    )
    yield adopt("DjangoDummy", dummy.DummyBackendTestCase, tasks_for(Candidate, []))

    class Transaction(dummy.DummyBackendTransactionTestCase):
        # The original's own decorator has named the dummy already; `__wrapped__` is the test below it.
        def test_doesnt_wait_until_transaction_commit_by_default(self):
            original = dummy.DummyBackendTransactionTestCase.test_doesnt_wait_until_transaction_commit_by_default
            with override_settings(TASKS=tasks_for(Candidate, ["default"])):
                original.__wrapped__(self)

    yield adopt("DjangoTransaction", Transaction, tasks_for(Candidate, []))
    immediate.ImmediateBackend = Executed
    yield adopt("DjangoImmediate", immediate.ImmediateBackendTestCase, tasks_for(Executed, []))


def load(file, name, replacements, stubs):
    """Import a test module of another project from its file, with names in its text replaced and imports stubbed."""
    text = file.read_text()
    for old, new in replacements:
        text = re.sub(old, new, text)
    module = types.ModuleType(name)
    module.__file__ = str(file)
    with mock.patch.dict(sys.modules, stubs):
        exec(compile(text, str(file), "exec"), module.__dict__)
    return module


def portable_tasks():
    """`tests.tasks` of django-tasks is Django's own `tasks.tasks` with another capital in three messages."""
    import tasks.tasks as module

    package = types.ModuleType("tests")
    package.tasks = module
    return {"tests": package, "tests.tasks": module}


def rq_suite(file):
    stub = mock.MagicMock
    module = load(
        file,
        "rq_tests",
        [
            (r"django_tasks_rq\.RQBackend", path(Candidate)),
            ("from django_tasks_rq", "from stub_rq"),
            (r"\bdjango_tasks\b", "django.tasks"),
            ("InvalidTaskError", "InvalidTask"),
            ("This task failed due to", "This Task failed due to"),
        ],
        {
            "django_rq": stub(),
            "fakeredis": stub(),
            "rq": stub(),
            "rq.defaults": stub(),
            "rq.timeouts": stub(),
            "stub_rq": stub(),
            "stub_rq.backend": stub(RQBackend=Candidate),
            **portable_tasks(),
        },
    )
    module.RQBackend = Candidate

    def setUp(self):
        candidate.clear()
        super(SimpleTestCase, self).setUp()

    yield adopt(
        "TasksRq",
        module.RQBackendTestCase,
        tasks_for(Candidate, ["default", "queue-1"]),
        {"setUp": setUp, "run_worker": lambda self: candidate.drain()},
    )


class Rows:
    """What tests of django-tasks-db ask of its model, answered by get_result()."""

    def __init__(self, want=lambda result: True):
        self.want = want

    objects = property(lambda self: self)
    all = ready = successful = failed = running = lambda self: self

    def count(self):
        return sum(map(self.want, (default_task_backend.get_result(id) for id in candidate.ids())))

    def ready(self):
        return Rows(
            lambda r: (
                r.status == TaskResultStatus.READY and (r.task.run_after is None or r.task.run_after <= timezone.now())
            )
        )

    def successful(self):
        return Rows(lambda r: r.status == TaskResultStatus.SUCCESSFUL)

    def failed(self):
        return Rows(lambda r: r.status == TaskResultStatus.FAILED)


def db_suites(file):
    package, stub = mock.MagicMock(DatabaseBackend=Candidate), mock.MagicMock
    module = load(
        file,
        "db_tests",
        [
            (r"django_tasks_db\.DatabaseBackend", path(Candidate)),
            ("from django_tasks_db", "from stub_db"),
            ("This task failed due to", "This Task failed due to"),
        ],
        {
            "stub_db": package,
            "stub_db.admin": stub(),
            "stub_db.management": stub(),
            "stub_db.management.commands": stub(),
            "stub_db.management.commands.prune_db_task_results": stub(),
            "stub_db.models": stub(),
            "stub_db.utils": stub(),
            **portable_tasks(),
        },
    )
    module.DBTaskResult, module.DatabaseBackend = Rows(), Candidate
    # An id is what the backend likes; UUIDs are this one's.
    module.uuid = types.SimpleNamespace(
        UUID=lambda text: types.SimpleNamespace(version=4), uuid4=lambda: "00000000-dead-beef-0000-000000000000"
    )
    no_count = {"assertNumQueries": lambda self, number: nullcontext()}  # as many as the backend likes

    def elsewhere(self):
        """How many jobs another connection sees."""
        return in_thread(lambda: len(candidate.ids()))

    yield adopt(
        "TasksDb",
        module.DatabaseBackendTestCase,
        tasks_for(Candidate, ["default", "queue-1"]),
        {**no_count, "get_task_count_in_new_connection": elsewhere},
    )

    def run_worker(queue_name="default", backend_name="default", **_):
        candidate.drain(queues=None if queue_name == "*" else queue_name.split(","), backend=backend_name)

    yield adopt(
        "TasksDbWorker",
        module.DatabaseBackendWorkerTestCase,
        tasks_for(
            Candidate,
            [
                "default",
                "queue-1",
            ],  # a second alias of the same class, instead of a dummy: its worker has nothing to do
            dummy={"BACKEND": path(Candidate), "QUEUES": []},
        ),
        {**no_count, "run_worker": staticmethod(run_worker)},
    )


# The run
class Result(unittest.TextTestResult):
    """Counts by suite."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.table = {}

    def _note(self, test, kind):
        test = getattr(test, "test_case", test)
        self.table.setdefault(type(test).__name__, {}).setdefault(kind, set()).add(test._testMethodName)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._note(test, "passed")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._note(test, "failed")

    def addError(self, test, err):
        super().addError(test, err)
        self._note(test, "failed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._note(test, "left out")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, "failed")


def main():
    made = [*django_suites(), *rq_suite(ARGS.rq_tests), *db_suites(ARGS.db_tests)]
    loader = unittest.TestLoader()
    loader.testNamePatterns = [f"*{k}*" for k in ARGS.k] or None
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in made)
    if ARGS.list:
        for case in suite:
            for test in case:
                print(test.id())
        return 0
    runner = get_runner(settings, "django.test.runner.DiscoverRunner")(verbosity=0, interactive=False)
    runner.setup_test_environment()
    old = runner.setup_databases()
    try:
        candidate.prepare()
        result = unittest.TextTestRunner(verbosity=ARGS.v, resultclass=Result).run(suite)
    finally:
        candidate.finish()
        runner.teardown_databases(old)
    print(f"\nDjango {django.get_version()}, Python {sys.version.split()[0]}: {candidate.BACKEND}")
    print(f"{'suite':18}{'passed':>8}{'failed':>8}{'left out':>10}")
    total = {"passed": 0, "failed": 0, "left out": 0}
    for case in made:
        row = result.table.get(case.__name__, {})
        bad = row.get("failed", set())
        counts = {
            "passed": len(row.get("passed", set()) - bad),
            "failed": len(bad),
            "left out": len(row.get("left out", set())),
        }
        for key, value in counts.items():
            total[key] += value
        print(
            f"{case.__name__:18}{counts['passed']:8}{counts['failed']:8}{counts['left out']:10}   "
            f"{', '.join(sorted(bad))}"
        )
    print(f"{'all':18}{total['passed']:8}{total['failed']:8}{total['left out']:10}")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['left out']} skipped")
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
