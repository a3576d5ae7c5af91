"""What is sold."""

from django.db import models


class Order(models.Model):
    customer = models.CharField(max_length=200)
    sent_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"order {self.pk} of {self.customer}"
