"""Tests of what enqueues and of what runs."""

from django.test import TestCase

from qworker.testing import assert_enqueued, drain, refute_enqueued
from shop.checkout import buy
from shop.jobs import app, ship
from shop.models import Order


class CheckoutTest(TestCase):
    def test_an_order_is_shipped(self) -> None:
        buy("Ada")
        assert_enqueued(ship, count=1)
        drain(app)
        self.assertIsNotNone(Order.objects.get(customer="Ada").sent_at)

    def test_what_is_not_paid_is_not_shipped(self) -> None:
        with self.assertRaises(ValueError):
            buy("Bob", paid=False)
        refute_enqueued(ship)
