"""What Django's migrations of this app consist of: each applies one of qworker's own, unless it was applied."""

from typing import Any

from django.apps import apps
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState

from qworker import migrations
from qworker.contrib.django.stores import LABEL, holds_jobs, schemas
from qworker.db.adapters import below_django
from qworker.errors import InvalidOperation


class ApplyMigration(Operation):
    """Applies a migration of qworker in the databases that hold jobs, and records it as `qworker db migrate` does."""

    reduces_to_sql = True
    reversible = True  # as far as Django is concerned: what refuses it says why

    def __init__(self, name: str) -> None:
        self.name = name

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Add the models as they are now. They own no table, so no migration is ever needed for a change of them."""
        for model in apps.get_app_config(LABEL).get_models():
            if (app_label, model._meta.model_name) not in state.models:
                state.add_model(ModelState.from_model(model))

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Apply the migration in each schema of the database; all is one transaction."""
        if not holds_jobs(schema_editor.connection.alias):
            return
        for schema in schemas(schema_editor.connection.alias):
            if schema_editor.collect_sql:
                for text in (migrations.script_prepare(schema), *migrations.script_of(self._migration, schema)):
                    schema_editor.execute(text, params=None)
            else:
                schema_editor.connection.cursor().execute("SELECT")  # begins the transaction, which is Django's to end
                migrations.apply(below_django(schema_editor.connection), self._migration, schema)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Refuse, while the schema exists: jobs that wait would be lost."""
        if not holds_jobs(schema_editor.connection.alias) or schema_editor.collect_sql:
            return
        connection = below_django(schema_editor.connection)
        for schema in schemas(schema_editor.connection.alias):
            if any(found.applied_at for found in migrations.status(connection, schema)):
                raise InvalidOperation(
                    f"{self.name} is not reversed, because the schema {schema!r} may hold jobs that wait. Older code "
                    f"works with a newer schema. To delete it with all jobs, run DROP SCHEMA {schema} CASCADE first"
                )

    def describe(self) -> str:
        """Return what `migrate` and `sqlmigrate` print of it."""
        return f"Apply {self.name} to the schema of the jobs, unless the schema has it"

    @property
    def _migration(self) -> migrations.Migration:
        return next(migration for migration in migrations.shipped() if str(migration) == self.name)
