"""The applications of a Django project: one for each backend in TASKS, in the models' database."""

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from qworker.ambient import Ambient
from qworker.app import App
from qworker.contrib.django import middleware
from qworker.contrib.django.configuration import Configuration, node_settings
from qworker.contrib.django.database import DjangoAmbient, ThriftyPool, dsn
from qworker.db.pool import Pool
from qworker.job import Job
from qworker.options import PRIORITIES, Options
from qworker.spec import JobSpec
from qworker.task import EndHook, Hook, Task

H = TypeVar("H", bound=Hook)
E = TypeVar("E", bound=EndHook)

#: How many combinations of task, priority and queue are remembered.
MAX_SPECS = 1_000


class DjangoApp(App):
    """An App whose database is one of Django's. Its nodes also run the tasks of one backend in TASKS."""

    pool: ThriftyPool

    def __init__(self, configuration: Configuration) -> None:
        #: What the application was made from.
        self.configuration = configuration
        self.dsn_origin = f"DATABASES[{configuration.database!r}] in Django's settings"
        super().__init__(partial(dsn, configuration.database), schema=configuration.schema)
        self._specs: dict[tuple[str, int, str], JobSpec] = {}
        self.middleware(middleware.around_job)
        self.on_worker_start(self._start_worker)

    def _make_pool(self) -> Pool:
        return ThriftyPool(self.dsn, self.schema)

    def _make_ambient(self) -> Ambient:
        self._ambient = DjangoAmbient(self.pool, self.configuration.database)
        return self._ambient

    def _start_worker(self) -> None:
        """Use connections of the worker outside of transactions: Django closes its own after each job."""
        self._ambient.shares = False
        self.pool.keeps = True

    def node_settings(self) -> Mapping[str, tuple[object, str]]:
        """Return the settings of nodes in Django's settings: the entries of QWORKER, and the queues of the backend."""
        return node_settings(self.configuration)

    def on_error(self, hook: H) -> H:
        """Register a hook as `App.on_error` does; it has usable connections of Django."""
        super().on_error(middleware.around_hook(hook))
        return hook

    def on_end(self, hook: E) -> E:
        """Register a hook as `App.on_end` does; it has usable connections of Django."""
        super().on_end(middleware.around_hook(hook))
        return hook

    # Django's tasks

    def serve_tasks(self) -> None:
        """Run the tasks of the backend: look for jobs of all its priorities, and send its signals."""
        from qworker.contrib.django import results

        if self.priorities != results.PRIORITIES:
            self.priorities = results.PRIORITIES
            self.on_end(self._send_finished)

    def add_task(self, task: Any) -> Task[..., Any]:
        """Register a task of Django under its path, unless it is registered; return the task of the application."""
        from qworker.contrib.django.tasks import Handler, path_of

        path = path_of(task)
        known = self.tasks.get(path)
        handler: Any = known.handler if known is not None else None
        if known is not None and isinstance(handler, Handler):
            if handler.task.func is task.func:
                return known
            # The module was executed again, perhaps with other options.
            self._specs = {key: spec for key, spec in self._specs.items() if key[0] != path}
        own = self.configuration.defaults.merge(options_of(task)).merge(self.queue_options(task))
        found: Task[..., Any] = Task(Handler(task, self._read_result), self.enqueuing, own, name=path)
        self.tasks[path] = found
        return found

    def queue_options(self, task: Any) -> Options:
        """Return the queue of a task's jobs; raises ValueError."""
        return Options(queue=f"{self.configuration.queue_prefix}{task.queue_name}")

    def _check_owner(self, task: Any) -> None:
        """Raise InvalidTask if the nodes of another backend serve the queue."""
        from qworker.contrib.django.api import InvalidTask
        from qworker.contrib.django.stores import owner

        queue = str(self.queue_options(task).queue)
        found = owner(self.configuration, queue)
        if found is not None and found != self.configuration:
            raise InvalidTask(
                f"queue {queue!r} is one of the backend {found.alias!r}, whose nodes would run the task: use "
                f"using(backend={found.alias!r}), or another name"
            )

    def enqueue_task(self, task: Any, args: Any, kwargs: Any) -> Job:
        """Store a job for a task of Django; args and kwargs are kept as they are given."""
        from qworker.contrib.django import results

        registered, priority = self.add_task(task), results.job_priority(task.priority)
        key = registered.name, priority, task.queue_name
        spec = self._specs.get(key)
        if spec is None:
            self._check_owner(task)
            # The SQL function accepts a priority beyond those of other applications only for a job with meta.
            meta = None if priority in PRIORITIES else "{}"
            plain = JobSpec.of(registered.name, registered.defaults, self.queue_options(task))
            spec = replace(plain, priority=priority, meta=meta)
            if len(self._specs) >= MAX_SPECS:  # a project may name a queue after each of its customers
                self._specs = {}
            self._specs[key] = spec
        if task.run_after is not None:
            start = results.aware(task.run_after)
            # A job forgets its start time when it has started; the task of a result keeps it.
            spec = replace(spec, run_at=start, meta=json.dumps({"run_after": start.isoformat()}))
        stored = registered.parameters.bind(args, kwargs)
        return self.enqueuing.one(spec, stored)

    def task_result(self, job: Job) -> Any:
        """Return the TaskResult of a job; None if it is not a job of this backend."""
        from qworker.contrib.django import results, tasks

        prefix = self.configuration.queue_prefix
        if job.hook or not job.queue.startswith(prefix):
            return None
        known = self.tasks.get(job.task)
        if known is not None and not isinstance(known.handler, tasks.Handler):
            return None
        handler: Any = known.handler if known is not None else None
        declared = find_task(job.task) if handler is None else handler.task
        options = {
            "priority": results.task_priority(job.priority),
            "queue_name": job.queue.removeprefix(prefix),
            "backend": self.configuration.alias,
            "run_after": results.run_after(job),
        }
        return results.to_result(job, results.with_options(declared, **options), self.configuration.alias)

    def _read_result(self, job_id: int) -> Any:
        result = self.task_result(self.job(job_id))
        if result is None:
            raise LookupError(f"job {job_id} is in a queue of another backend than {self.configuration.alias!r}")
        return result

    def _send_finished(self, job: Job, error: BaseException | None) -> None:
        from qworker.contrib.django.tasks import Handler, send_finished

        task = self.tasks.get(job.task)
        if task is not None and isinstance(task.handler, Handler) and (result := self.task_result(job)) is not None:
            send_finished(result, error)


def options_of(task: Any) -> Options:
    """Return the options that a task has beyond those of Django."""
    own: Any = getattr(task, "options", None)
    return own() if own is not None else Options()


def find_task(path: str) -> Any:
    """Return the task at a path, or one that stands for a task which does not exist any more."""
    from qworker.contrib.django import discovery, tasks
    from qworker.contrib.django.results import stand_in

    found = tasks.loaded(path)
    if found is None:
        discovery.discover_what_can_be()
        found = tasks.loaded(path)
    return found if found is not None else stand_in(tasks.removed(path))


_applications: dict[Configuration, DjangoApp] = {}
_lock = threading.Lock()


def application(alias: str = "default", options: dict[str, Any] | None = None) -> DjangoApp:
    """Return the application of a backend in TASKS. That of "default" is the project's, with TASKS or without."""
    configuration = Configuration.of(alias, options)
    with _lock:
        found = _applications.get(configuration)
        if found is None:
            found = _applications[configuration] = DjangoApp(configuration)
        return found
