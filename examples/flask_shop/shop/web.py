"""The pages of the shop, as JSON. They answer at once, and leave the work to jobs."""

from decimal import Decimal
from typing import Any

from flask import Blueprint, request

from shop import services
from shop.extensions import db
from shop.models import Customer, Order

pages = Blueprint("pages", __name__)


@pages.post("/customers")
def sign_up() -> Any:
    customer = services.sign_up(request.form["email"], request.form["name"])
    return {"customer": customer.id}, 201


@pages.post("/orders")
def place_order() -> Any:
    customer = db.get_or_404(Customer, request.form["customer"])
    order, job = services.place_order(customer, Decimal(request.form["total"]), request.form["card"])
    return {"order": order.id, "job": job.id}, 202


@pages.get("/orders/<int:number>")
def order(number: int) -> Any:
    found = db.get_or_404(Order, number)
    return {"state": found.state, "total": str(found.total)}
