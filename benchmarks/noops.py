"""The application of the benchmark."""

from qworker import App

app = App()


@app.task(name="noop")
def noop(n: int) -> None:
    pass
