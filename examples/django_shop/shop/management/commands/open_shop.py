"""`python manage.py open_shop`: customers sign up, pay and upload pictures, so that there are jobs to look at."""

from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand

from shop import services
from shop.jobs import nightly_report


class Command(BaseCommand):
    help = "Let some customers in."

    def handle(self, **_options: Any) -> None:
        ada = services.sign_up("ada@example.com", "Ada")
        bob = services.sign_up("bob@example.com", "Bob")
        services.place_order(ada, Decimal("19.90"), "tok_visa")
        services.place_order(bob, Decimal("5.00"), "tok_declined")
        services.upload(bytes(range(256)) * 64, width=128, height=128)
        services.send_newsletter("What is new")
        nightly_report.enqueue()
        self.stdout.write("the shop has two customers, two orders and a picture")
