"""The commands of the shop: `flask --app shop --help`."""

from decimal import Decimal

import click
from flask.cli import with_appcontext

from shop.extensions import db


@click.command
@with_appcontext
def create_tables() -> None:
    """Create the tables of the models."""
    db.create_all()


@click.command
@with_appcontext
def open_shop() -> None:
    """Let some customers in: they sign up, pay and upload a picture, so that there are jobs to look at."""
    from shop import services
    from shop.jobs import nightly_report

    ada = services.sign_up("ada@example.com", "Ada")
    bob = services.sign_up("bob@example.com", "Bob")
    services.place_order(ada, Decimal("19.90"), "tok_visa")
    services.place_order(bob, Decimal("5.00"), "tok_declined")
    services.upload(bytes(range(256)) * 64, width=128, height=128)
    services.send_newsletter("What is new")
    nightly_report.enqueue()
    print("the shop has two customers, two orders and a picture")
