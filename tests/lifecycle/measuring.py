"""An application with a metric of its own."""

import os

from prometheus_client import Counter, Gauge

from qworker import App

app = App(os.environ.get("QWORKER_DSN"))

SOLD = Counter("shop_sold", "Items sold.")
SHOPS = Counter("shop_visits", "Visits.", ["shop"])
LAST = Gauge("shop_last", "The last one.", multiprocess_mode="livesum")


@app.task(name="sell")
def sell() -> None:
    SOLD.inc()
    SHOPS.labels("a_b").inc(2)
    LAST.set(1)
