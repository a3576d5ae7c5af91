"""An application whose jobs are in a schema of another name, which it says itself."""

from qworker import App

app = App(schema="jobs_elsewhere")


@app.task(name="where")
def where() -> str:
    return app.schema
