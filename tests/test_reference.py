"""The API reference says what the docstrings say."""

import qworker
from qworker import testing
from tests.reference import DOCTOR, PAGE, doctor_page, page


def test_the_page_is_made_from_the_docstrings() -> None:
    assert PAGE.read_text() == page(), "run `python -m tests.reference`"


def test_the_page_of_the_doctor_contains_what_the_command_explains() -> None:
    assert DOCTOR.read_text() == doctor_page(), "edit checks.md, and run `python -m tests.reference`"


def test_every_public_name_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert {name for name in (*qworker.__all__, *testing.__all__) if f"### {name}\n" not in text} == set()
