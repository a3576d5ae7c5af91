"""Thumbnails and the report of the night."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from flask.testing import FlaskClient

from qworker import PermanentError, TimeoutInterrupt
from qworker.testing import drain, travel
from shop import pictures
from shop.extensions import db, queue
from shop.jobs import nightly_report, thumbnail
from shop.models import Customer, DailyReport, Order
from shop.services import upload


def test_a_picture_is_scaled_down(client: FlaskClient) -> None:
    picture = upload(bytes([0, 100] * 64) * 64, width=128, height=64)
    [attempt] = drain(queue)
    db.session.refresh(picture)
    assert (attempt.result, picture.thumbnail) == (32 * 16, bytes([50]) * 32 * 16)


def test_a_picture_that_takes_too_long_is_given_up(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(*_: object) -> None:
        while True:
            pass

    picture = upload(b"\0", width=1, height=1)
    drain(queue)
    monkeypatch.setattr(pictures, "shrink", forever)
    thumbnail.options(timeout=0.2, retry=False).enqueue(picture.id)
    with pytest.raises(TimeoutInterrupt):
        drain(queue)


def test_a_broken_picture_is_not_tried_again(client: FlaskClient) -> None:
    upload(b"\0", width=100, height=100)
    [attempt] = drain(queue, raise_failures=False)
    assert isinstance(attempt.error, PermanentError)
    assert attempt.state == "failed"


@pytest.fixture
def today(client: FlaskClient) -> date:
    """The day of two orders that are paid."""
    found = datetime.now(UTC).date()
    ada = Customer(email="ada@example.com", name="Ada")
    for total in ("19.90", "5.00"):
        db.session.add(Order(customer=ada, total=Decimal(total), placed_on=found, state="paid"))
    db.session.commit()
    return found


def test_the_report_is_written_in_the_night(today: date) -> None:
    with travel(datetime.combine(today + timedelta(days=1), time(1), UTC)):
        [attempt] = drain(queue)
    assert attempt.task == nightly_report.name
    report = db.session.query(DailyReport).one()
    assert (report.day, report.orders, report.revenue) == (today, 2, Decimal("24.90"))


def test_a_second_run_replaces_the_report(today: date) -> None:
    for _ in range(2):
        nightly_report.enqueue()
        drain(queue)
    report = db.session.query(DailyReport).one()
    assert (report.day, report.orders) == (today - timedelta(days=1), 0)
