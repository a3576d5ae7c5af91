"""Orders, and what can happen to their payment."""

from decimal import Decimal
from typing import Any
from unittest.mock import Mock

import pytest
from flask.testing import FlaskClient

from qworker import InvalidPayload
from qworker.testing import assert_enqueued, drain, refute_enqueued
from shop import payments
from shop.extensions import db, queue
from shop.jobs import Payment, charge, notify
from shop.models import Customer, Order
from shop.services import pay, place_order, sign_up


@pytest.fixture
def ada(client: FlaskClient) -> Customer:
    customer = sign_up("ada@example.com", "Ada")
    drain(queue)
    return customer


def test_an_order_is_paid(client: FlaskClient, ada: Customer) -> None:
    form = {"customer": ada.id, "total": "19.90", "card": "tok_visa"}
    number = client.post("/orders", data=form).json["order"]
    assert_enqueued(charge, {"payment": Payment(number, Decimal("19.90"), "tok_visa")}, queue="payments", count=1)
    [attempt] = drain(queue)
    assert attempt.result == f"ch_order-{number}"
    assert client.get(f"/orders/{number}").json == {"state": "paid", "total": "19.90"}


def test_who_clicks_twice_pays_once(ada: Customer) -> None:
    order, first = place_order(ada, Decimal(5), "tok_visa")
    assert pay(order, "tok_visa").id == first.id
    assert_enqueued(charge, count=1)


def test_a_declined_card_is_not_tried_again(ada: Customer, outbox: list[Any]) -> None:
    order, _ = place_order(ada, Decimal(5), "tok_declined")
    [attempt, hook, _mail] = drain(queue, raise_failures=False)
    assert isinstance(attempt.error, payments.CardDeclined)
    assert (attempt.state, hook.hook) == ("failed", True)
    db.session.refresh(order)
    assert order.state == "declined"
    assert "the bank declines 5" in outbox[-1][2]


def test_a_busy_service_is_asked_again_soon_and_a_lost_connection_later(
    ada: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Mock(side_effect=[payments.ServiceBusy(), ConnectionError("reset"), "ch_1"])
    monkeypatch.setattr(payments, "charge", service)
    order, _ = place_order(ada, Decimal(5), "tok_visa")
    attempts = drain(queue, due="all", raise_failures=False)
    assert [attempt.state for attempt in attempts] == ["scheduled", "scheduled", "completed"]
    assert [attempt.delay for attempt in attempts[:2]] == [pytest.approx(5, rel=0.1), pytest.approx(60, rel=0.1)]
    assert {call.kwargs["key"] for call in service.call_args_list} == {f"order-{order.id}"}
    refute_enqueued(notify)


def test_an_order_that_is_paid_is_not_charged_again(ada: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order(customer=ada, total=Decimal(5), state="paid", charge="ch_1")
    db.session.add(order)
    db.session.flush()
    pay(order, "tok_visa")
    monkeypatch.setattr(payments, "charge", Mock(side_effect=AssertionError("charged twice")))
    assert [attempt.result for attempt in drain(queue)] == ["ch_1"]


def test_a_wrong_payload_is_refused_where_it_is_enqueued(ada: Customer) -> None:
    with pytest.raises(InvalidPayload) as raised:
        charge.enqueue(Payment("seven", Decimal(5), None))  # type: ignore[arg-type]
    assert [path for path, _problem in raised.value.problems] == ["args.payment.order_id", "args.payment.card_token"]
    refute_enqueued(charge)
