"""What the pages do. A job is stored in the transaction of the row that it is about: both are committed, or neither."""

from decimal import Decimal

from sqlalchemy import select

from qworker import Job
from shop.extensions import db
from shop.jobs import Payment, charge, newsletter, thumbnail, welcome
from shop.models import Customer, Order, Picture


def sign_up(email: str, name: str) -> Customer:
    customer = Customer(email=email, name=name)
    db.session.add(customer)
    db.session.flush()
    welcome.enqueue(customer.id)
    db.session.commit()
    return customer


def place_order(customer: Customer, total: Decimal, card_token: str) -> tuple[Order, Job[str]]:
    order = Order(customer=customer, total=total)
    db.session.add(order)
    db.session.flush()
    job = pay(order, card_token)
    db.session.commit()
    return order, job


def pay(order: Order, card_token: str) -> Job[str]:
    """Have an order paid. If it is being paid already, return that job: whoever clicks twice pays once."""
    return charge.options(unique=f"order-{order.id}").enqueue(Payment(order.id, order.total, card_token))


def upload(pixels: bytes, width: int, height: int) -> Picture:
    picture = Picture(pixels=pixels, width=width, height=height)
    db.session.add(picture)
    db.session.flush()
    thumbnail.enqueue(picture.id)
    db.session.commit()
    return picture


def send_newsletter(subject: str) -> int:
    """Enqueue a job for each subscriber in one statement; return how many were new."""
    subscribers = db.session.scalars(select(Customer.id).where(Customer.subscribed)).all()
    count = newsletter.enqueue_many((customer, subject) for customer in subscribers)
    db.session.commit()
    return count
