"""The tests of the shop: python manage.py test."""
