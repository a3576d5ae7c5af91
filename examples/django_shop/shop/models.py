"""What the shop knows."""

from django.db import models


class Customer(models.Model):
    email = models.EmailField(unique=True)
    name = models.CharField(max_length=100)
    subscribed = models.BooleanField(default=True)
    welcomed_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>"


class Order(models.Model):
    class State(models.TextChoices):
        PLACED = "placed"
        PAID = "paid"
        DECLINED = "declined"

    customer = models.ForeignKey(Customer, models.PROTECT, related_name="orders")
    total = models.DecimalField(max_digits=10, decimal_places=2)
    placed_at = models.DateTimeField(auto_now_add=True)
    state = models.CharField(max_length=10, choices=State, default=State.PLACED)
    #: What the payment service calls the charge.
    charge = models.CharField(max_length=100, blank=True)

    def __str__(self) -> str:
        return f"order {self.pk} of {self.customer.name}"


class Picture(models.Model):
    """A greyscale picture: a byte for each pixel, row by row."""

    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    pixels = models.BinaryField()
    thumbnail = models.BinaryField(null=True)

    def __str__(self) -> str:
        return f"picture {self.pk}, {self.width} x {self.height}"


class DailyReport(models.Model):
    day = models.DateField(unique=True)
    orders = models.PositiveIntegerField()
    revenue = models.DecimalField(max_digits=12, decimal_places=2)

    def __str__(self) -> str:
        return f"{self.day}: {self.orders} orders, {self.revenue}"
