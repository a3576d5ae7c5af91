"""The tasks. Nodes find this module, because it is the module `jobs` of an installed app."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.core.mail import send_mail
from django.db import transaction
from django.db.models import Count, Sum
from django.utils import timezone

from qworker import Job, JobFailed, PermanentError, Retry, current_job
from qworker.contrib.django import app
from shop import payments, pictures
from shop.models import Customer, DailyReport, Order, Picture


@app.task(queue="mail", timeout=30, retry=5)
def welcome(customer_id: int) -> None:
    """Send the first e-mail; a second attempt after it was sent does nothing."""
    customer = Customer.objects.get(pk=customer_id)
    if customer.welcomed_at is None:
        send_mail(f"Welcome, {customer.name}", "Good to have you here.", None, [customer.email])
        customer.welcomed_at = timezone.now()
        customer.save(update_fields=["welcomed_at"])


@dataclass(frozen=True)
class Payment:
    """The payload of `charge`: stored as JSON, and validated on both sides."""

    order_id: int
    amount: Decimal
    card_token: str


@app.task(
    typed=True,
    queue="payments",
    timeout=30,
    retry=Retry(8, delays={payments.ServiceBusy: 5, ConnectionError: 60}, never_on=[payments.CardDeclined]),
)
def charge(payment: Payment) -> str:
    """Charge the card of an order. No transaction is open while the payment service is asked."""
    order = Order.objects.get(pk=payment.order_id)
    if order.state != Order.State.PAID:
        # The worker may die between the next two statements. The key lets the next attempt charge the card only once.
        order.charge = payments.charge(payment.card_token, payment.amount, key=f"order-{order.pk}")
        order.state = Order.State.PAID
        order.save(update_fields=["charge", "state"])
    return order.charge


@charge.on_failure
def cancel_order(job: Job, error: JobFailed) -> None:
    """Give an order up that cannot be paid, and say so: once, when no attempt is left."""
    with transaction.atomic():
        order = Order.objects.select_related("customer").get(pk=job.args["payment"]["order_id"])
        order.state = Order.State.DECLINED
        order.save(update_fields=["state"])
        notify.enqueue(order.customer.email, "Your order", f"We could not charge your card: {error.message}")


@app.task(queue="mail", timeout=30, retry=5)
def notify(email: str, subject: str, text: str) -> None:
    send_mail(subject, text, None, [email])


@app.task(queue="mail", priority=8, timeout=30, expires=timedelta(days=1), tags=["newsletter"], unique=True)
def newsletter(customer_id: int, subject: str) -> None:
    """Send the newsletter to one customer, after everything else in the queue."""
    customer = Customer.objects.get(pk=customer_id)
    if customer.subscribed:  # the job may have waited
        send_mail(subject, f"Dear {customer.name}, ...", None, [customer.email])


@app.task(queue="images", timeout=20, retry=2)
def thumbnail(picture_id: int) -> int:
    """Scale a picture down to 32 pixels at most."""
    picture = Picture.objects.get(pk=picture_id)
    factor = max(1, -(-max(picture.width, picture.height) // 32))
    try:
        picture.thumbnail = pictures.shrink(bytes(picture.pixels), picture.width, picture.height, factor)
    except ValueError as error:
        raise PermanentError(str(error)) from error
    picture.save(update_fields=["thumbnail"])
    return len(picture.thumbnail)


@app.cron("30 0 * * *", timezone="Europe/Berlin")
@app.task(queue="reports", timeout=600, unique=True)
def nightly_report() -> str:
    """Count the orders of the day before the tick, which may be late if no node was running."""
    tick = (app.job(current_job.id).meta or {}).get("tick")
    now = datetime.fromisoformat(tick) if tick else timezone.now()
    day = timezone.localdate(now) - timedelta(days=1)
    paid = Order.objects.filter(state=Order.State.PAID, placed_at__date=day)
    found = paid.aggregate(orders=Count("pk"), revenue=Sum("total", default=Decimal(0)))
    report, _ = DailyReport.objects.update_or_create(day=day, defaults=found)
    return str(report)
