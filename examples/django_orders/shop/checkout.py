"""What a view would call."""

from django.db import transaction

from qworker import Job
from shop.jobs import ship
from shop.models import Order


def buy(customer: str, *, paid: bool = True) -> Job:
    """Take an order, and have it shipped: both at the commit of the block, or neither."""
    with transaction.atomic():
        order = Order.objects.create(customer=customer)
        job = ship.enqueue(order.pk)
        if not paid:
            raise ValueError(f"{order} is not paid: rolled back, and its job with it")
    return job
