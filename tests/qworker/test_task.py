"""Declaring tasks."""

import asyncio
import subprocess
import sys
from dataclasses import InitVar, dataclass, field
from datetime import datetime
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import pytest

from qworker import App, ConfigurationError, Job, JobFailed, JobState, Retry, Task, UnknownTask
from qworker.options import UNSET


@pytest.fixture
def app() -> App:
    return App("")


def test_a_plain_call_stays_a_plain_call(app: App) -> None:
    @app.task(name="double")
    def double(n: int) -> int:
        """Double it."""
        return 2 * n

    assert double(4) == 8
    assert double.__doc__ == "Double it."
    assert double.__name__ == "double"


def module_level(user_id: int) -> None: ...


def test_a_task_is_named_after_its_module_and_function(app: App) -> None:
    send = app.task(queue="emails", priority=2, timeout=30, retry=5, slow_after=None)(module_level)
    assert send.name == f"{__name__}.module_level"
    assert app.get_task(send.name) is send
    assert (send.queue, send.priority, send.timeout, send.retry, send.slow_after) == ("emails", 2, 30.0, Retry(5), None)


def test_what_is_not_given_is_left_to_the_worker(app: App) -> None:
    @app.task(name="short")
    def send() -> None: ...

    assert send.name == "short"
    assert (send.timeout, send.slow_after) == (UNSET, UNSET)
    assert send.retry == Retry()


def test_two_tasks_of_one_name_are_refused_with_both_places(app: App) -> None:
    @app.task(name="send")
    def first() -> None: ...

    with pytest.raises(ConfigurationError) as caught:

        @app.task(name="send")
        def second() -> None: ...

    assert str(caught.value).count(f"({__file__}:") == 2
    assert "'send'" in str(caught.value)


def test_the_same_lines_imported_again_are_no_second_task(app: App) -> None:
    def module() -> Task[[], None]:
        @app.task(name="send")
        def send() -> None: ...

        return send

    assert module() is not (again := module())
    assert app.tasks == {"send": again}


def test_an_unknown_task_is_named_beside_those_that_exist(app: App) -> None:
    app.task(name="send")(lambda: None)
    with pytest.raises(UnknownTask, match=r"task 'sent' not found; did you mean 'send'\? `qworker tasks list`"):
        app.get_task("sent")


def test_what_would_not_run_as_a_plain_call_is_refused(app: App) -> None:
    async def asynchronous() -> Any:
        yield 1

    def generator() -> Any:
        yield 1

    with pytest.raises(ConfigurationError, match=r"asynchronous.*asyncio\.run"):
        app.task(asynchronous)
    with pytest.raises(ConfigurationError, match="generator"):
        app.task(generator)


def traced(call: Any) -> Any:
    @wraps(call)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    return wrapper


def run_async(call: Any) -> Any:
    @wraps(call)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(call(*args, **kwargs))

    return wrapper


async def coroutine(n: int = 1) -> int:
    return n


def generator() -> Any:
    yield 1


async def asynchronous_generator() -> Any:
    yield 1


class Instance:
    async def __call__(self) -> None: ...


class Method:
    async def method(self) -> None: ...


@pytest.mark.parametrize(
    "call",
    [
        traced(coroutine), traced(traced(coroutine)), traced(asynchronous_generator),
        partial(partial(traced(coroutine)), n=1), traced(partial(coroutine)), partial(Instance()),
        traced(Method().method),
    ],
)  # fmt: skip
def test_a_coroutine_is_refused_behind_what_stands_before_it(app: App, call: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"asynchronous.*asyncio\.run"):
        app.task(name="send")(call)
    task = app.task(name="other")(lambda: None)
    with pytest.raises(ConfigurationError, match="asynchronous"):
        task.on_failure(call)


@pytest.mark.parametrize("call", [coroutine, partial(coroutine, 1), Instance(), Method().method])
def test_a_coroutine_function_is_a_handler_and_not_a_hook(app: App, call: Any) -> None:
    task = app.task(name="send")(call)
    assert task.handler() in (1, None)
    result = task()
    assert asyncio.iscoroutine(result)
    result.close()
    for hook in (task.on_failure, app.on_error, app.on_end, app.on_worker_start, app.on_worker_stop, app.middleware):
        with pytest.raises(ConfigurationError, match=r"asynchronous.*asyncio\.run"):
            hook(call)


@pytest.mark.parametrize("call", [traced(generator), partial(generator)])
def test_a_generator_is_refused_behind_what_stands_before_it(app: App, call: Any) -> None:
    with pytest.raises(ConfigurationError, match="generator"):
        app.task(name="send")(call)


def test_methods_of_class_tasks_are_plain_functions_too(app: App) -> None:
    with pytest.raises(ConfigurationError, match="asynchronous"):

        @app.task(name="send")
        @dataclass
        class Send:
            @traced
            async def handle(self) -> None: ...

    with pytest.raises(ConfigurationError, match="asynchronous"):

        @app.task(name="other")
        @dataclass
        class Other:
            def handle(self) -> None: ...
            async def failed(self, error: Exception) -> None: ...


def test_a_decorator_that_runs_the_coroutine_makes_a_plain_function(app: App) -> None:
    task = app.task(name="send")(run_async(coroutine))
    assert task(4) == 4
    assert app.task(name="traced")(traced(run_async(coroutine)))(5) == 5


def test_what_is_no_named_function_is_refused(app: App) -> None:
    with pytest.raises(TypeError, match="pass options by name: queue='emails'"):
        app.task("emails")  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="has no qualified name: name the task with name="):
        app.task(partial(print, 1))
    assert app.task(name="hello")(partial(print, end="")).name == "hello"
    with pytest.raises(ConfigurationError, match="wrap it in a function that has a signature"):
        app.task(name="pop")(dict.pop)


def test_types_follow_the_function(app: App) -> None:
    @app.task(name="bare")
    def double(n: int) -> int:
        return 2 * n

    @app.task(name="task")
    @dataclass
    class Order:
        n: int

        def handle(self) -> None: ...

    assert_type(double(1), int)
    assert_type(Order(n=1), Order)
    with pytest.raises(TypeError):
        double.enqueue("x", 2)  # type: ignore[arg-type, call-arg]
    with pytest.raises(TypeError):
        double.options(colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"conn": None}, "conn applies to one job"),
        ({"run_at": datetime.now().astimezone()}, "run_at applies to one job"),
        ({"depends_on": []}, "unknown option 'depends_on'; expected one of queue"),
    ],
)
def test_what_is_no_default_is_refused(app: App, named: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        app.task(**named)
    assert message in str(caught.value)


def test_using_takes_a_connection_and_nothing_else(app: App) -> None:
    send = app.task(name="send")(lambda: None)
    with pytest.raises(TypeError, match=r"using\(\) takes only a connection; pass priority to \.options"):
        send.using(None, priority=3)


def test_using_without_a_connection_says_what_to_do(app: App) -> None:
    send: Any = app.task(name="send")(lambda: None)
    with pytest.raises(TypeError, match=r"pass priority to \.options"):
        send.using(priority=3)


def test_a_bad_schema_name_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="'no such; name'"):
        App(schema="no such; name")


# --- failure hooks


def test_a_hook_is_kept_and_stays_a_function(app: App) -> None:
    send = app.task(name="send")(lambda: None)

    @send.on_failure
    def alert(job: Job, error: JobFailed) -> str:
        return "called"

    assert send.hook is alert
    with pytest.raises(ConfigurationError, match=r"on_failure hook already: .*alert"):
        send.on_failure(lambda _job, _error: None)


# --- classes


def test_a_dataclass_with_handle_is_a_task_and_stays_a_class(app: App) -> None:
    seen = []

    @app.task(queue="critical", name="order")
    @dataclass
    class ProcessOrder:
        order_id: int
        note: str = "none"

        def handle(self) -> str:
            return f"{self.order_id} {self.note}"

        def failed(self, error: JobFailed) -> None:
            seen.append((self.order_id, error))

    task = app.get_task("order")
    assert ProcessOrder(7).note == "none"
    assert task.queue == "critical"
    assert task.handler(order_id=7) == "7 none"
    error = JobFailed(1)
    assert task.hook is not None
    task.hook(Job(id=1, state=JobState.FAILED, queue="q", priority=5, task="order", args={"order_id": 9}), error)
    assert seen == [(9, error)]


def test_fields_that_the_constructor_does_not_take_are_not_stored(app: App) -> None:
    from qworker.task import instance_args

    @app.task(name="task")
    @dataclass(frozen=True, kw_only=True)
    class Count:
        n: int
        cache: list[int] = field(default_factory=list, init=False)

        def handle(self) -> None: ...

    assert instance_args(Count(n=3)) == {"n": 3}


def test_a_class_that_cannot_be_rebuilt_is_refused(app: App) -> None:
    class NoHandle: ...

    class NoDataclass:
        def handle(self) -> None: ...

    @dataclass
    class Lost:
        a: int
        b: InitVar[int]

        def handle(self) -> None: ...

    for kind, message in [
        (NoHandle, "method handle"),
        (NoDataclass, "above @dataclass"),
        (Lost, "b would be lost"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            app.task(name="task")(kind)


def test_a_class_may_have_an_asynchronous_method(app: App) -> None:
    @app.task(name="count")
    @dataclass
    class Count:
        n: int

        async def handle(self) -> int:
            await asyncio.sleep(0)
            return self.n + 1

    assert app.get_task("count").handler(n=2) == 3


def test_only_instances_of_tasks_can_be_enqueued_by_the_app(app: App) -> None:
    with pytest.raises(TypeError, match=r"instance of a class decorated with @app\.task\(\), not 5"):
        app.enqueue(5)  # type: ignore[arg-type] # what this is about


# --- words of other libraries


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("delay", r"call \.enqueue\("),
        ("apply_async", r"call \.options\(.*\)\.enqueue\("),
        ("defer", r"call \.enqueue\("),
        ("delay_on_commit", r"call \.enqueue\(\.\.\.\), which joins the transaction"),
    ],
)
def test_a_method_of_another_library_names_ours(app: App, name: str, word: str) -> None:
    task: Task[[], None] = app.task(name="send")(lambda: None)
    for found in (task, task.options(queue="emails")):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}': {word}"):
            getattr(found, name)
    with pytest.raises(AttributeError, match=r"has no attribute 'dlay'$"):
        task.dlay  # type: ignore[attr-defined] # noqa: B018
    assert not hasattr(task, "delay")


# --- what type checkers see


def test_the_result_of_a_job_has_the_type_of_its_handlers(app: App) -> None:
    @app.task(name="double")
    def double(n: int) -> int:
        return 2 * n

    @app.task(name="order")
    @dataclass
    class Order:
        number: int

        def handle(self) -> str:
            return ""

    if TYPE_CHECKING:
        assert_type(double.enqueue(1), Job[int])
        assert_type(double.enqueue(1).wait(), int)
        assert_type(double.enqueue(1).refresh().wait(timeout=1), int)
        assert_type(double.options(delay=5).using(None).enqueue(1).wait(), int)
        assert_type(app.enqueue(Order(1)).wait(), str)
        assert_type(app.job(1), Job[Any])
        assert_type(next(app.jobs(task=double)), Job[int])
        assert_type(next(app.jobs(task="double")), Job[Any])
        double.delay(1)  # type: ignore[attr-defined]


# --- schedules


def test_cron_registers_a_schedule_under_the_tasks_name(app: App) -> None:
    @app.cron("*/5 * * * *", timezone="Europe/Berlin")
    @app.cron("0 0 * * *", name="nightly", misfire="skip")
    @app.task(name="report")
    def report() -> None: ...

    assert {s.name: (s.expression, s.timezone, s.misfire) for s in app.schedules.values()} == {
        "report": ("*/5 * * * *", "Europe/Berlin", "once"),
        "nightly": ("0 0 * * *", "UTC", "skip"),
    }


def test_cron_below_the_task_or_twice_is_refused(app: App) -> None:
    with pytest.raises(ConfigurationError, match=r"must be above @app\.task\(\)"):
        app.cron("* * * * *")(lambda: None)  # type: ignore[type-var]
    report = app.task(name="report")(lambda: None)
    app.cron("* * * * *")(report)
    with pytest.raises(ConfigurationError, match="schedule 'report' exists already: give this one another name="):
        app.cron("0 * * * *")(report)


def test_cron_refuses_tasks_that_need_arguments(app: App) -> None:
    @app.task(name="report")
    def report(day: str) -> None: ...

    with pytest.raises(ConfigurationError, match=r"report\(day: str\).*missing a required argument: 'day'"):
        app.cron("* * * * *")(report)


# --- scripts


def test_a_script_enqueues_under_the_name_the_worker_imports_it_by(tmp_path: Path) -> None:
    script = tmp_path / "shop.py"
    script.write_text(
        "from qworker import App\napp = App('')\n@app.task\ndef send(): ...\n"
        "if __name__ == '__main__': print(send.name)\n"
    )
    command = [sys.executable, str(script)]
    as_script = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    command = [sys.executable, "-m", "shop"]
    as_module = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert as_script == as_module == "shop.send\n"
