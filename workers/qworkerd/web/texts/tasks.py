"""The pages of tasks."""

PRIORITY = "Priority"
UNIQUE = "Unique"
TYPED = "Typed"
TRANSACTIONAL = "Transactional"
FAILURE_HOOK = "Failure hook"
DEFINED = "Defined"
QUEUES_AND_SCHEDULES = "Queues and schedules"
ALL_JOBS = "All jobs of this task"
ENQUEUE_A_JOB = "Enqueue a job"
NO_ARGUMENTS = "The task takes no arguments."
AS_JSON_INSTEAD = "All arguments as JSON instead"
ENQUEUE = "Enqueue"
REQUIRED = "required"
EXAMPLE_DATE_TIME = "2026-01-31T09:00:00+01:00"
DELAY_IN_SECONDS = "Delay in seconds"
DIED_OR_LOST = "Died or lost"
NOT_IN_APPLICATION = "not in this application"
EMPTY = "No task is known yet."

#: The title of the page of one task.
TASK = "Task"
NO_APPLICATION = (
    "Only the database is known here: it has the names, the numbers and the schedules. Docstrings, signatures, options "
    "and the form appear if the dashboard is started with the application."
)
WHAT = "A task appears when the dashboard has its application, or when one of its jobs has been counted."
NO_APPLICATION_ONE = (
    "Only the database is known here. Docstring, signature, options and the form appear if the dashboard is started "
    "with the application."
)
ONLY_IN_DATABASE = "The application does not have this task; the database knows it from its jobs."
TIMEOUT_OF_NODE = "that of the node"
IN_QUEUE, BY_SCHEDULE, LAST = "queue {queue}", "schedule {schedule}", "last {tick}"

WRONG = "Nothing was enqueued: see what is wrong with the arguments"
CHOOSE, NO_CHOICE = "choose", "none"
ANY_JSON, AS_JSON = "any JSON value", "{type} as JSON"
ALL_AS_OBJECT = "All arguments as one JSON object"
EXAMPLE_ARGUMENTS = '{"user_id": 7}'
EXAMPLE_DATE, EXAMPLE_TIME = "2026-01-31", "09:00:00"
INVALID = "the arguments are not valid"


def backoff(first: str, factor: float, cap: str) -> str:
    """Say how long a retry waits."""
    return f"backoff {first}, \N{MULTIPLICATION SIGN} {factor:g}, at most {cap}"


def median(duration: str) -> str:
    """Say how long half of the jobs take."""
    return f"median {duration}"


def timed_out(number: int) -> str:
    """Say how many attempts took too long."""
    return f"{number:,} timed out"


def attempts(number: int) -> str:
    """Say how many attempts there were."""
    return f"{number:,} {'attempt' if number == 1 else 'attempts'}"


def unused(period: str) -> str:
    """Say that nothing enqueues a task."""
    return f"No attempt has ended {period}, and no schedule enqueues it."


def enqueued(job: int) -> str:
    """Say that the job of the form is enqueued."""
    return f"Job {job} is enqueued."


def held(job: int) -> str:
    """Say why it is not."""
    return f"Nothing was enqueued: job {job} has been enqueued by this form, or holds the unique key."
