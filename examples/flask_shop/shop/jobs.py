"""The tasks. Each job runs in an application context and with a session of its own."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlalchemy import func, select

from qworker import Job, JobFailed, PermanentError, Retry, current_job
from shop import mail, payments, pictures
from shop.extensions import db, queue
from shop.models import Customer, DailyReport, Order, Picture


@queue.task(queue="mail", timeout=30, retry=5)
def welcome(customer_id: int) -> None:
    """Send the first e-mail; a second attempt after it was sent does nothing."""
    customer = db.session.get_one(Customer, customer_id)
    if customer.welcomed_at is None:
        mail.send(customer.email, f"Welcome, {customer.name}", "Good to have you here.")
        customer.welcomed_at = datetime.now(UTC).replace(tzinfo=None)
        db.session.commit()


@dataclass(frozen=True)
class Payment:
    """The payload of `charge`: stored as JSON, and validated on both sides."""

    order_id: int
    amount: Decimal
    card_token: str


@queue.task(
    typed=True,
    queue="payments",
    timeout=30,
    retry=Retry(8, delays={payments.ServiceBusy: 5, ConnectionError: 60}, never_on=[payments.CardDeclined]),
)
def charge(payment: Payment) -> str:
    """Charge the card of an order. No transaction is open while the payment service is asked."""
    order = db.session.get_one(Order, payment.order_id)
    if order.state != "paid":
        db.session.commit()
        # The worker may die between the next two statements. The key lets the next attempt charge the card only once.
        reference = payments.charge(payment.card_token, payment.amount, key=f"order-{payment.order_id}")
        order.state, order.charge = "paid", reference
        db.session.commit()
    return order.charge


@charge.on_failure
def cancel_order(job: Job, error: JobFailed) -> None:
    """Give an order up that cannot be paid, and say so: once, when no attempt is left."""
    order = db.session.get_one(Order, job.args["payment"]["order_id"])
    order.state = "declined"
    notify.enqueue(order.customer.email, "Your order", f"We could not charge your card: {error.message}")
    db.session.commit()


@queue.task(queue="mail", timeout=30, retry=5)
def notify(email: str, subject: str, text: str) -> None:
    mail.send(email, subject, text)


@queue.task(queue="mail", priority=8, timeout=30, expires=timedelta(days=1), tags=["newsletter"], unique=True)
def newsletter(customer_id: int, subject: str) -> None:
    """Send the newsletter to one customer, after everything else in the queue."""
    customer = db.session.get_one(Customer, customer_id)
    if customer.subscribed:  # the job may have waited
        mail.send(customer.email, subject, f"Dear {customer.name}, ...")


@queue.task(queue="images", timeout=20, retry=2)
def thumbnail(picture_id: int) -> int:
    """Scale a picture down to 32 pixels at most."""
    picture = db.session.get_one(Picture, picture_id)
    factor = max(1, -(-max(picture.width, picture.height) // 32))
    try:
        small = pictures.shrink(picture.pixels, picture.width, picture.height, factor)
    except ValueError as error:
        raise PermanentError(str(error)) from error
    picture.thumbnail = small
    db.session.commit()
    return len(small)


@queue.cron("30 0 * * *", timezone="UTC")
@queue.task(queue="reports", timeout=600, unique=True)
def nightly_report() -> str:
    """Count the orders of the day before the tick, which may be late if no node was running."""
    tick = (queue.job(current_job.id).meta or {}).get("tick")
    now = datetime.fromisoformat(tick) if tick else datetime.now(UTC)
    day = now.date() - timedelta(days=1)
    paid = select(func.count(), func.coalesce(func.sum(Order.total), 0)).where(
        Order.state == "paid", Order.placed_on == day
    )
    orders, revenue = db.session.execute(paid).one()
    db.session.merge(DailyReport(day=day, orders=orders, revenue=revenue))
    db.session.commit()
    return f"{day}: {orders} orders, {revenue}"
