"""Signing up, and the newsletter."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.exc import IntegrityError

from qworker.testing import assert_enqueued, drain, enqueued, refute_enqueued
from shop.extensions import db, queue
from shop.jobs import newsletter, welcome
from shop.models import Customer
from shop.services import send_newsletter, sign_up


def test_a_new_customer_gets_one_e_mail(client: FlaskClient, outbox: list[Any]) -> None:
    answer = client.post("/customers", data={"email": "ada@example.com", "name": "Ada"})
    assert answer.status_code == 201
    assert outbox == []
    assert_enqueued(welcome, {"customer_id": answer.json["customer"]}, queue="mail", count=1)
    drain(queue)
    assert [(to, subject) for to, subject, _ in outbox] == [("ada@example.com", "Welcome, Ada")]
    assert db.session.query(Customer).one().welcomed_at is not None


def test_a_second_run_of_the_job_sends_nothing(client: FlaskClient, outbox: list[Any]) -> None:
    welcome.enqueue(sign_up("ada@example.com", "Ada").id)
    assert len(drain(queue)) == 2
    assert len(outbox) == 1


def test_nobody_is_welcomed_who_could_not_sign_up(client: FlaskClient) -> None:
    sign_up("ada@example.com", "Ada")
    with pytest.raises(IntegrityError):
        sign_up("ada@example.com", "Ada the second")
    db.session.rollback()
    assert_enqueued(welcome, count=1)


def test_every_subscriber_gets_the_newsletter_once(client: FlaskClient, outbox: list[Any]) -> None:
    db.session.add_all(
        Customer(email=f"{n}@example.com", name=f"customer {n}", subscribed=n % 2 == 0) for n in range(100)
    )
    assert send_newsletter("News") == 50
    assert send_newsletter("News") == 0, "the button was pressed twice"
    drain(queue)
    assert len(outbox) == 50


def test_the_newsletter_comes_after_other_mail(client: FlaskClient, outbox: list[Any]) -> None:
    customer = Customer(email="ada@example.com", name="Ada")
    db.session.add(customer)
    send_newsletter("News")
    welcome.enqueue(customer.id)
    drain(queue)
    assert [subject for _, subject, _ in outbox] == ["Welcome, Ada", "News"]


def test_who_has_unsubscribed_meanwhile_gets_none(client: FlaskClient, outbox: list[Any]) -> None:
    customer = Customer(email="ada@example.com", name="Ada")
    db.session.add(customer)
    send_newsletter("News")
    assert len(enqueued(newsletter)) == 1
    customer.subscribed = False
    db.session.commit()
    drain(queue)
    assert outbox == []
    refute_enqueued(newsletter)
