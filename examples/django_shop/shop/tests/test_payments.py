"""Orders, and what can happen to their payment."""

from datetime import timedelta
from decimal import Decimal
from unittest import mock

from django.core import mail
from django.test import TestCase

from qworker import InvalidPayload
from qworker.testing import assert_enqueued, drain, perform, refute_enqueued
from shop.jobs import Payment, app, charge, notify
from shop.models import Customer, Order
from shop.payments import CardDeclined, ServiceBusy
from shop.services import pay, place_order


class PaymentTest(TestCase):
    def setUp(self) -> None:
        self.customer = Customer.objects.create(email="ada@example.com", name="Ada")

    def test_an_order_is_paid(self) -> None:
        form = {"customer": self.customer.pk, "total": "19.90", "card": "tok_visa"}
        answer = self.client.post("/orders", form).json()
        payment = Payment(answer["order"], Decimal("19.90"), "tok_visa")
        assert_enqueued(charge, {"payment": payment}, queue="payments", count=1)
        [attempt] = drain(app)
        self.assertEqual(attempt.result, f"ch_order-{answer['order']}")
        state = self.client.get(f"/orders/{answer['order']}").json()
        self.assertEqual(state, {"state": "paid", "total": "19.90"})

    def test_who_clicks_twice_pays_once(self) -> None:
        order, first = place_order(self.customer, Decimal(5), "tok_visa")
        self.assertEqual(pay(order, "tok_visa").id, first.id)
        assert_enqueued(charge, count=1)

    def test_a_declined_card_is_not_tried_again(self) -> None:
        order, job = place_order(self.customer, Decimal(5), "tok_declined")
        [attempt, hook, _mail] = drain(app, raise_failures=False)
        self.assertIsInstance(attempt.error, CardDeclined)
        self.assertEqual((attempt.state, hook.hook), ("failed", True))
        order.refresh_from_db()
        self.assertEqual((order.state, job.refresh().state), (Order.State.DECLINED, "failed"))
        self.assertIn("the bank declines 5", mail.outbox[0].body)

    def test_a_busy_service_is_asked_again_soon_and_a_lost_connection_later(self) -> None:
        order, _ = place_order(self.customer, Decimal(5), "tok_visa")
        with mock.patch(
            "shop.payments.charge", side_effect=[ServiceBusy(), ConnectionError("reset"), "ch_1"]
        ) as service:
            attempts = drain(app, due="all", raise_failures=False)
        self.assertEqual([attempt.state for attempt in attempts], ["scheduled", "scheduled", "completed"])
        soon, later = attempts[0].delay, attempts[1].delay
        self.assertAlmostEqual(soon, 5, delta=0.5)
        self.assertAlmostEqual(later, 60, delta=6)
        self.assertEqual({call.kwargs["key"] for call in service.call_args_list}, {f"order-{order.pk}"})
        refute_enqueued(notify)

    def test_an_order_that_is_paid_is_not_charged_again(self) -> None:
        order = Order.objects.create(customer=self.customer, total=5, state=Order.State.PAID, charge="ch_1")
        with mock.patch("shop.payments.charge") as service:
            self.assertEqual(perform(charge, Payment(order.pk, Decimal(5), "tok_visa"), attempt=2), "ch_1")
        service.assert_not_called()

    def test_a_wrong_payload_is_refused_where_it_is_enqueued(self) -> None:
        with self.assertRaises(InvalidPayload) as raised:
            charge.enqueue(Payment("seven", Decimal(5), None))
        paths = [path for path, _problem in raised.exception.problems]
        self.assertEqual(paths, ["args.payment.order_id", "args.payment.card_token"])
        refute_enqueued(charge, after=timedelta(0))
