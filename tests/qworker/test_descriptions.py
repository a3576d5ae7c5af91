"""What a task says about itself."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from qworker import App, Retry
from qworker.descriptions import TaskDescription, describe


def described(app: App, name: str) -> TaskDescription:
    return describe(app.get_task(name), app.schedules)


def test_a_signature_shows_types_and_not_what_annotates_them() -> None:
    app = App("")

    @app.task(name="ship", typed=True)
    def ship(copies: Annotated[int, Field(gt=0, description="How many")] = 1, *, note: str | None = None) -> str:
        return ""

    @app.task(name="plain")
    def plain(user_id: int, *rest: str) -> None: ...

    assert described(app, "ship").signature == "(copies: int = 1, *, note: str | None = None) -> str"
    assert described(app, "plain").signature == "(user_id: int, *rest: str) -> None"


def test_the_docstring_of_a_dataclass_that_python_wrote_is_none() -> None:
    app = App("")

    @app.task(name="parcel", retry=Retry(5), unique_for=3_600)
    @dataclass
    class Parcel:
        order_id: int

        def handle(self) -> None: ...

    found = described(app, "parcel")
    assert (found.doc, found.summary, found.retry["attempts"]) == ("", "", 5)
    assert (found.unique, found.timeout_text, found.schema) == ("by its arguments, for 1h", None, None)


def test_a_description_names_the_schedules_of_the_task() -> None:
    app = App("")

    @app.cron("0 3 * * *", timezone="Europe/Berlin", name="nightly")
    @app.task(name="report", timeout=None)
    def report() -> None:
        """Report the day.

        It takes long.
        """

    app.cron("* * * * *")(app.task(name="other")(lambda: None))
    found = described(app, "report")
    assert (found.summary, found.timeout_text) == ("Report the day.", "none")
    assert list(found.schedules) == ["nightly"]
    assert found.as_dict()["schedules"] == {"nightly": {"expression": "0 3 * * *", "timezone": "Europe/Berlin"}}
