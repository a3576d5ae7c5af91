"""The tasks."""

from django.db import close_old_connections, connection, connections, transaction
from django.utils import timezone
from psycopg import pq
from psycopg.conninfo import make_conninfo

from qworker import App

#: The options of libpq; OPTIONS also contains settings of Django.
LIBPQ = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}


def dsn() -> str:
    """Return the connection string of the models' database: only there can jobs join the models' transactions."""
    db = connections["default"].settings_dict
    options = {name: value for name, value in db["OPTIONS"].items() if name in LIBPQ}
    parameters = {
        "dbname": db["NAME"],
        "user": db["USER"],
        "password": db["PASSWORD"],
        "host": db["HOST"],
        "port": db["PORT"],
    }
    return make_conninfo(**{name: value for name, value in parameters.items() if value}, **options)


app = App(dsn)


@app.task(timeout=60, retry=5)
def ship(order_id: int) -> str:
    """Send an order off; run again, it finds it sent."""
    from shop.models import Order

    if not connection.in_atomic_block:
        close_old_connections()
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=order_id)
        if order.sent_at is None:
            order.sent_at = timezone.now()
            order.save()
    return f"{order} is on its way"
