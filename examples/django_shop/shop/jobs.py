"""The tasks."""

from django.conf import settings
from django.db import close_old_connections, transaction
from django.utils import timezone
from psycopg.conninfo import make_conninfo

from qworker import App


def dsn() -> str:
    """Say where the database of the models is: only there can jobs join the models' transactions."""
    db = settings.DATABASES["default"]
    return make_conninfo(
        dbname=db["NAME"],
        user=db["USER"],
        password=db["PASSWORD"],
        host=db["HOST"],
        port=db["PORT"],
    )


app = App(dsn)


@app.task(timeout=60, retry=5)
def ship(order_id: int) -> str:
    """Send an order off; run again, it finds it sent."""
    from shop.models import Order

    close_old_connections()
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=order_id)
        if order.sent_at is None:
            order.sent_at = timezone.now()
            order.save()
    return f"{order} is on its way"
