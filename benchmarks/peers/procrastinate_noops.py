"""Procrastinate: the app with a synchronous task, and `fill`. It has no time limit for jobs."""

import os

from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=os.environ["PEER_URL"]))


@app.task(name="noop")
def noop(n: int) -> None:
    pass


async def fill(jobs: int) -> None:
    async with app.open_async():
        for start in range(0, jobs, 1000):
            await noop.batch_defer_async(*({"n": n} for n in range(start, min(start + 1000, jobs))))
