"""The pages of one job: what it is, its attempts, its log and its stack."""

DUE = "Due"
RUNS_ON = "Runs on"
TAGS = "Tags"
COPY_OF = "Copy of"
TRACE = "Trace"
SAME_KEY = "Same key"
WAITED = "Waited"
RAN = "Ran"
END = "End"
ARGUMENTS = "Arguments"
RESULT = "Result"
EDIT = "Edit the arguments and retry"
RETRY_EDITED = "Retry with these arguments"
ERRORS_LIKE_THIS = "All errors like this"
LOGS = "Logs"
WHO = "Who"
WHY = "Why"
EDIT_ARGUMENTS = "Arguments, as JSON"
MESSAGE = "Message"
READ_IT_AGAIN = "Read it again"
NO_LINES_STORED = "No lines are stored."
NO_LINES_YET = "No lines yet."
QUEUE_PAUSED = "its queue is paused"
NEW_PRIORITY = "Priority, 0 (first) to 9"
FOLLOW_LOG = "Follow the log"
STACK = "Stack"
CANCEL_JOB = "Cancel the job"
STACKS = "Stacks"

NUMBER = "Job {number}"
IN_QUEUE = "in queue {queue}, priority {priority}"
HIDDEN = "Arguments, results, errors and logs are hidden: you have no right to see them."
ENQUEUE_ANOTHER = "Enqueue another job with these or other arguments"
CHECKED = "They are checked against the task before they are stored."
ASK_MOVE = "To which queue, or to which priority?"
EMPTY_STAYS = "A field that is empty stays as it is."
ASK_DISCARD = "Discard this job? It moves to the history, and can be run again from there."
ASK_CANCEL = "Cancel this job?"
ASK_INTERRUPT = "Cancel this job? If it runs, it is interrupted within about a second."

#: The parts of an attempt in its bar.
DELAY, WAIT, RUN = "delay", "wait", "run"
ATTEMPT = "attempt {number}"
DIED = "The worker died while {phase}, after {ran}; peak memory {memory} MiB, processor time {cpu} s."

#: What a list says of a job in its state.
NEXT_ATTEMPT, DUE_AT = "next attempt {at}", "due {at}"
BEGAN, BEGAN_ON = "began {at}", "began {at} on {node}"
RAN_FOR = "took {duration}, ended {at}"
BECAME_AVAILABLE = "became available {at}"
ENDED_AT = "ended {at}"

LOG_OF, STACK_OF = "Log of job {number}", "Stack of job {number}"
WHICH_LINES = "The lines of attempts that did not fail are kept if the setting job_logs says so."
NODE_ASKED = "The node of the job was asked for them, and answers within a second."
STACK_READ = "Read {at}, after the handler had run for {ran}, by worker {worker} (pid {pid})."
STACK_READ_ON = "Read {at}, after the handler had run for {ran}, by worker {worker} (pid {pid}) of {node}."
STACK_ORDER = "The innermost call is first. The job was not disturbed."


def attempts(number: int, crashes: int, node_losses: int) -> str:
    """Say how many attempts there were, and how many did not end by themselves."""
    found = [f"{number}"]
    if crashes:
        found.append(f"{crashes} killed the worker")
    if node_losses:
        found.append(f"{node_losses} lost with the node")
    return ", ".join(found)


def pid(number: int) -> str:
    """Name a process."""
    return f"pid {number}"


def lines(attempt: int, number: int) -> str:
    """Name the log of an attempt, and how long it is."""
    return f"Attempt {attempt}, {number:,} {'line' if number == 1 else 'lines'}"


def log_of_attempt(attempt: int) -> str:
    """Name the lines of an attempt."""
    return f"Log of attempt {attempt}"


def dropped(number: int) -> str:
    """Say how many lines the log lacks."""
    return f"{number:,} earlier lines were not kept."


def after_dropped(number: int) -> str:
    """Say the same behind the number of lines."""
    return f"after {number:,} earlier ones that were not kept"


def copied(copy: int, number: int) -> str:
    """Say that a job has a copy."""
    return f"Job {copy} is a copy of job {number}."


def retried_edited(number: int) -> str:
    """Say that a job was retried with other arguments."""
    return f"Job {number} has been retried with the edited arguments."


def not_retried(number: int, state: str, rule: str) -> str:
    """Say why a job was not retried."""
    return f"Job {number} was not retried: it is {state}, and {rule}."
