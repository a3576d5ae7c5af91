"""Pages that show rows and change none."""

from typing import Any

from django.contrib import admin

#: The highest id of a job.
MAX_ID = (1 << 63) - 1


def parse_id(text: Any) -> int | None:
    """Return the id that a string contains, or None."""
    text = str(text).strip()
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(MAX_ID)):
        return None
    return min(int(text), MAX_ID)


class ReadOnlyAdmin(admin.ModelAdmin):
    """The admin of a model that qworker alone writes."""

    # Facets count the rows of each choice of each filter.
    show_facets = admin.ShowFacets.NEVER if hasattr(admin, "ShowFacets") else None
    sortable_by = ()

    class Media:
        css = {"all": ("qworker/admin.css",)}  # noqa: RUF012 - as Django names it

    def has_add_permission(self, request: Any, obj: Any = None) -> bool:
        """Return False: the pages create nothing."""
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        """Return False: no form changes a row."""
        return False

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        """Return False."""
        return False
