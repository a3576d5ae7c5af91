"""The tasks. A node imports this module, as it does `jobs` and `tasks` of each installed app."""

from django.db import transaction
from django.utils import timezone

from qworker.contrib.django import app
from shop.models import Order


@app.task(timeout=60, retry=5)
def ship(order_id: int) -> str:
    """Send an order off; run again, it finds it sent."""
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=order_id)
        if order.sent_at is None:
            order.sent_at = timezone.now()
            order.save()
    return f"{order} is on its way"
