"""Signing up, and the newsletter."""

from django.core import mail
from django.db import IntegrityError, transaction
from django.test import TestCase

from qworker.testing import assert_enqueued, drain, enqueued, refute_enqueued
from shop.jobs import app, newsletter, welcome
from shop.models import Customer
from shop.services import send_newsletter, sign_up


class SignUpTest(TestCase):
    def test_a_new_customer_gets_one_e_mail(self) -> None:
        answer = self.client.post("/customers", {"email": "ada@example.com", "name": "Ada"})
        self.assertEqual(answer.status_code, 201)
        self.assertEqual(mail.outbox, [])
        assert_enqueued(welcome, {"customer_id": answer.json()["customer"]}, queue="mail", count=1)
        drain(app)
        self.assertEqual([message.subject for message in mail.outbox], ["Welcome, Ada"])
        self.assertIsNotNone(Customer.objects.get().welcomed_at)

    def test_a_second_run_of_the_job_sends_nothing(self) -> None:
        customer = sign_up("ada@example.com", "Ada")
        welcome.enqueue(customer.pk)
        self.assertEqual(len(drain(app)), 2)
        self.assertEqual(len(mail.outbox), 1)

    def test_nobody_is_welcomed_who_could_not_sign_up(self) -> None:
        Customer.objects.create(email="ada@example.com", name="Ada")
        with self.assertRaises(IntegrityError), transaction.atomic():
            sign_up("ada@example.com", "Ada the second")
        refute_enqueued(welcome)


class NewsletterTest(TestCase):
    def test_every_subscriber_gets_it_once(self) -> None:
        for n in range(100):
            Customer.objects.create(email=f"{n}@example.com", name=f"customer {n}", subscribed=n % 2 == 0)
        self.assertEqual(send_newsletter("News"), 50)
        self.assertEqual(send_newsletter("News"), 0, "the button was pressed twice")
        drain(app)
        self.assertEqual(len(mail.outbox), 50)

    def test_it_comes_after_other_mail(self) -> None:
        customer = Customer.objects.create(email="ada@example.com", name="Ada")
        send_newsletter("News")
        welcome.enqueue(customer.pk)
        drain(app)
        self.assertEqual([message.subject for message in mail.outbox], ["Welcome, Ada", "News"])

    def test_who_has_unsubscribed_meanwhile_gets_none(self) -> None:
        customer = Customer.objects.create(email="ada@example.com", name="Ada")
        send_newsletter("News")
        self.assertEqual(len(enqueued(newsletter)), 1)
        customer.subscribed = False
        customer.save()
        drain(app)
        self.assertEqual(mail.outbox, [])
