"""Tests of what enqueues and of what runs."""

from django.test import TestCase
from django.test.runner import DiscoverRunner

from shop.checkout import buy
from shop.jobs import app, ship


class Runner(DiscoverRunner):
    """Closes qworker's own connections at the end, for else the database of the tests could not be dropped."""

    def teardown_databases(self, *args: object, **options: object) -> None:
        app.close()
        super().teardown_databases(*args, **options)


class CheckoutTest(TestCase):
    def test_an_order_is_shipped(self) -> None:
        job = buy("Ada")
        self.assertEqual((job.refresh().state, job.task), ("available", "shop.jobs.ship"))
        self.assertIn("is on its way", ship(**job.args))

    def test_what_is_not_paid_is_not_shipped(self) -> None:
        with self.assertRaises(ValueError):
            buy("Bob", paid=False)
