"""The pages of the shop, as JSON. They answer at once, and leave the work to jobs."""

from decimal import Decimal

from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET, require_POST

from shop import services
from shop.models import Customer, Order


@require_POST
def sign_up(request: HttpRequest) -> JsonResponse:
    customer = services.sign_up(request.POST["email"], request.POST["name"])
    return JsonResponse({"customer": customer.pk}, status=201)


@require_POST
def place_order(request: HttpRequest) -> JsonResponse:
    customer = get_object_or_404(Customer, pk=request.POST["customer"])
    order, job = services.place_order(customer, Decimal(request.POST["total"]), request.POST["card"])
    return JsonResponse({"order": order.pk, "job": job.id}, status=202)


@require_GET
def order(_request: HttpRequest, pk: int) -> JsonResponse:
    found = get_object_or_404(Order, pk=pk)
    return JsonResponse({"state": found.state, "total": str(found.total)})
