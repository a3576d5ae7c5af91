"""The page of schedules."""

EXPRESSION = "Expression"
LAST_TICK = "Last tick"
NEXT_TICK = "Next tick"
LATE = "Late"
ITS_TASK = "its task"
NEVER = "never"
NONE = "none"
EMPTY = "There are no schedules."

NO_APPLICATION = "Only the database is known here. To run a schedule now, start the dashboard with the application."
OF_TASK = "task {task}"
THEN = "then {ticks}"
WHAT = "A schedule appears when a node declares it: put @app.cron above a task."


def late(number: int) -> str:
    """Say that schedules are late."""
    if number == 1:
        return "1 schedule has ticks that are more than a minute late. See whether a node that declares it lives."
    return (
        f"{number:,} schedules have ticks that are more than a minute late. See whether a node that declares them "
        "lives."
    )


def late_ticks(number: int, capped: bool) -> str:
    """Say how many ticks are late."""
    return f"{number:,}{'+' if capped else ''} {'tick' if number == 1 else 'ticks'}"


def ask_run(name: str) -> str:
    """Ask whether to run a schedule now."""
    return f"Enqueue the job of schedule {name} now? Its ticks stay as they are."


def ask_pause(name: str) -> str:
    """Ask whether to pause a schedule."""
    return f"Pause schedule {name}? Its ticks are skipped until it is resumed, and are not made up for."


def enqueued(job: int, name: str) -> str:
    """Say that a schedule was run."""
    return f"Job {job} of schedule {name} is enqueued."


def held(job: int) -> str:
    """Say why a schedule was not run."""
    return f"Nothing was enqueued: job {job} holds the key."


def paused(name: str, before: bool) -> str:
    """Say that a schedule is paused; before: it was already."""
    return f"Schedule {name} was already paused." if before else f"Schedule {name} is paused: its ticks are skipped."


def resumed(name: str, before: bool) -> str:
    """Say that a schedule is resumed; before: it was not paused."""
    if before:
        return f"Schedule {name} was not paused."
    return f"Schedule {name} is resumed. The ticks of its pause are not made up for."
