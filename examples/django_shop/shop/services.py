"""What the views do. A job is stored in the transaction of the row that it is about: both are committed, or neither."""

from decimal import Decimal

from django.db import transaction

from qworker import Job
from shop.jobs import Payment, charge, newsletter, thumbnail, welcome
from shop.models import Customer, Order, Picture


def sign_up(email: str, name: str) -> Customer:
    with transaction.atomic():
        customer = Customer.objects.create(email=email, name=name)
        welcome.enqueue(customer.pk)
    return customer


def place_order(customer: Customer, total: Decimal, card_token: str) -> tuple[Order, Job[str]]:
    with transaction.atomic():
        order = Order.objects.create(customer=customer, total=total)
        return order, pay(order, card_token)


def pay(order: Order, card_token: str) -> Job[str]:
    """Have an order paid. If it is being paid already, return that job: whoever clicks twice pays once."""
    return charge.options(unique=f"order-{order.pk}").enqueue(Payment(order.pk, order.total, card_token))


def upload(pixels: bytes, width: int, height: int) -> Picture:
    with transaction.atomic():
        picture = Picture.objects.create(pixels=pixels, width=width, height=height)
        thumbnail.enqueue(picture.pk)
    return picture


def send_newsletter(subject: str) -> int:
    """Enqueue a job for each subscriber, in one statement and constant memory; return how many were new."""
    with transaction.atomic():
        subscribers = Customer.objects.filter(subscribed=True).values_list("pk", flat=True)
        return newsletter.enqueue_many((pk, subject) for pk in subscribers.iterator())
