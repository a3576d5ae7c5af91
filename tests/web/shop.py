"""The application of the shop of `realistic.sql`: what a dashboard knows that is started with it."""

from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from qworker import App, Retry


class Address(BaseModel):
    """Where a parcel goes."""

    street: str
    city: str
    country: Literal["DE", "AT", "CH"] = "DE"


def shop(dsn: str) -> App:
    """Return the application for a database."""
    app = App(dsn)

    @app.task(name="shop.orders.capture_payment", queue="checkout", priority=1, timeout=30, retry=Retry(8), unique=True)
    def capture_payment(order_id: int, amount_cents: int, *, currency: Literal["EUR", "CHF"] = "EUR") -> None:
        """Capture the payment that was authorised at checkout.

        Safe to run again: the payment provider knows the order's number. If the card was declined, the customer gets
        a mail and the order is put on hold.
        """

    @app.task(name="shop.orders.send_receipt", queue="checkout", typed=True)
    def send_receipt(
        order_id: Annotated[int, Field(gt=0, description="The number on the order")],
        to: Address,
        due: date | None = None,
        discount: Decimal | None = None,
        copies: Annotated[int, Field(ge=1, le=9)] = 1,
        attachments: list[str] = [],  # noqa: B006
        express: bool = False,
    ) -> str:
        """Send the receipt of an order, with its attachments."""
        return ""

    @app.task(name="shop.mail.newsletter", queue="mail")
    def newsletter(campaign: str, recipients: list[str], dry_run: bool = False) -> None:
        """Send one batch of a campaign."""

    @app.task(name="shop.mail.welcome", queue="mail")
    def welcome(user_id: int, template: str = "welcome-2026") -> None:
        """Greet a new customer."""

    @app.task(name="shop.images.resize", queue="images", timeout=120)
    def resize(image: str, *sizes: int, quality: float = 0.85, **options: Any) -> None:
        """Make the smaller versions of a picture."""

    @app.task(name="shop.search.reindex_product")
    def reindex_product(product_id: int) -> None:
        """Update a product in the search index."""

    @app.cron("0 3 * * *", timezone="Europe/Berlin", name="nightly-report")
    @app.task(name="shop.reports.nightly", queue="reports", timeout=3_600, unique="nightly")
    def nightly() -> None:
        """Compute the sales of the day, and send them to the shop's owners."""

    app.cron("*/15 * * * *", name="cart-reminder")(app.task(name="shop.mail.remind", queue="mail")(lambda: None))
    return app
