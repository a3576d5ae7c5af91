"""A Flask application that answers at once and leaves the work to a job.

In this folder, with $QWORKER_DSN set and Flask installed:

    qworker db migrate
    qworker --app flask_app:jobs              the node
    flask --app flask_app run                 the web server
    curl -X POST localhost:5000/reports/7     {"job": 1}
    curl localhost:5000/jobs/1                {"state": "completed", ...}
"""

import time
from typing import Any

from flask import Flask, abort, url_for

from qworker import App, JobNotFound, current_job

jobs = App()
web = Flask(__name__)


@jobs.task(timeout=60, retry=3)
def report(customer: int) -> dict[str, int]:
    """Write a report; slow work that no request should wait for."""
    for month in range(12):
        current_job.progress(month / 12, f"month {month + 1}")
        time.sleep(0.2)
    return {"customer": customer, "pages": 12}


@web.post("/reports/<int:customer>")
def order(customer: int) -> Any:
    # Clicked twice, it is the same job: the key is free again when the job is over.
    job = report.options(unique=f"customer-{customer}").enqueue(customer)
    return {"job": job.id}, 202, {"Location": url_for("show", number=job.id)}


@web.get("/jobs/<int:number>")
def show(number: int) -> Any:
    try:
        job = jobs.job(number)
    except JobNotFound:
        abort(404)
    return {"state": job.state, "progress": job.progress, "result": job.result}
