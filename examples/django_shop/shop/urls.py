"""The addresses of the pages."""

from django.urls import path

from shop import views

urlpatterns = [
    path("customers", views.sign_up),
    path("orders", views.place_order),
    path("orders/<int:pk>", views.order),
]
