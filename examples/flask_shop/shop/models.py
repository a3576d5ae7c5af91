"""What the shop knows."""

from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import ForeignKey, Numeric, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from shop.extensions import db


class Customer(db.Model):  # type: ignore[name-defined]
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    subscribed: Mapped[bool] = mapped_column(default=True)
    welcomed_at: Mapped[datetime | None]


class Order(db.Model):  # type: ignore[name-defined]
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    customer: Mapped[Customer] = relationship()
    total: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    placed_on: Mapped[date] = mapped_column(default=date.today)
    #: placed, paid or declined.
    state: Mapped[str] = mapped_column(default="placed")
    #: What the payment service calls the charge.
    charge: Mapped[str] = mapped_column(default="")


class Picture(db.Model):  # type: ignore[name-defined]
    """A greyscale picture: a byte for each pixel, row by row."""

    id: Mapped[int] = mapped_column(primary_key=True)
    width: Mapped[int]
    height: Mapped[int]
    pixels: Mapped[bytes]
    thumbnail: Mapped[bytes | None]


class DailyReport(db.Model):  # type: ignore[name-defined]
    day: Mapped[date] = mapped_column(primary_key=True)
    orders: Mapped[int]
    revenue: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    written_at: Mapped[datetime] = mapped_column(server_default=func.now())
