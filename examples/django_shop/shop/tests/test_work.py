"""Thumbnails and the report of the night."""

from datetime import datetime, time, timedelta
from decimal import Decimal
from unittest import mock

from django.test import TestCase
from django.utils import timezone

from qworker import PermanentError, TimeoutInterrupt
from qworker.testing import drain, travel
from shop.jobs import app, nightly_report, thumbnail
from shop.models import Customer, DailyReport, Order, Picture
from shop.services import upload


def forever(*_: object) -> None:
    while True:
        pass


class ThumbnailTest(TestCase):
    def test_a_picture_is_scaled_down(self) -> None:
        picture = upload(bytes([0, 100] * 64) * 64, width=128, height=64)
        [attempt] = drain(app)
        picture.refresh_from_db()
        self.assertEqual((attempt.result, bytes(picture.thumbnail)), (32 * 16, bytes([50]) * 32 * 16))

    def test_a_picture_that_takes_too_long_is_given_up(self) -> None:
        picture = Picture.objects.create(pixels=b"\0", width=1, height=1)
        thumbnail.options(timeout=0.2, retry=False).enqueue(picture.pk)
        with mock.patch("shop.pictures.shrink", forever), self.assertRaises(TimeoutInterrupt):
            drain(app)

    def test_a_broken_picture_is_not_tried_again(self) -> None:
        upload(b"\0", width=100, height=100)
        [attempt] = drain(app, raise_failures=False)
        self.assertIsInstance(attempt.error, PermanentError)
        self.assertEqual(attempt.state, "failed")


class ReportTest(TestCase):
    def setUp(self) -> None:
        customer = Customer.objects.create(email="ada@example.com", name="Ada")
        for total in ("19.90", "5.00"):
            Order.objects.create(customer=customer, total=Decimal(total), state=Order.State.PAID)

    def test_it_is_written_in_the_night(self) -> None:
        today = timezone.localdate()
        night = timezone.make_aware(datetime.combine(today + timedelta(days=1), time(1)))
        with travel(night):
            [attempt] = drain(app)
        self.assertEqual(attempt.task, nightly_report.name)
        report = DailyReport.objects.get()
        self.assertEqual((report.day, report.orders, report.revenue), (today, 2, Decimal("24.90")))

    def test_a_second_run_replaces_it(self) -> None:
        for _ in range(2):
            nightly_report.enqueue()
            drain(app)
        report = DailyReport.objects.get()
        self.assertEqual((report.day, report.orders), (timezone.localdate() - timedelta(days=1), 0))
