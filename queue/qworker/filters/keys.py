"""The keys of filters: what each of them compares, and which values it takes."""

from dataclasses import dataclass
from enum import Enum, auto

from qworker.job import JobState


class Kind(Enum):
    """How the values of a key are written and compared."""

    #: A string, or the beginning of one: mail, mail*.
    TEXT = auto()
    #: A string that is contained in another, in upper or lower case.
    PHRASE = auto()
    #: One of a fixed set of words.
    CHOICE = auto()
    #: An integer, or a comparison with one: 3, >3.
    INTEGER = auto()
    #: A comparison with a duration: >1h30m.
    DURATION = auto()
    #: A point in time: 2026-01-31, 2026-01-31T09:00, 2026-01-31T09:00:00+01:00.
    TIME = auto()
    #: A fingerprint in hexadecimal digits, or the beginning of one: 9f2c03d1e5a7b6c4, 9f2c*.
    FINGERPRINT = auto()
    #: A value inside the arguments: a string, the beginning of one, or a comparison with a number.
    ARGUMENT = auto()


@dataclass(frozen=True, slots=True)
class Key:
    """A key, which stands before the colon of a term."""

    name: str
    kind: Kind
    #: What is compared; a phrase for lists of keys.
    help: str
    example: str
    #: The words that a CHOICE takes.
    choices: tuple[str, ...] = ()


#: The word for jobs that wait for another attempt; they are scheduled.
RETRYING = "retrying"
#: The words of `state`.
STATES = (*(state.value for state in JobState if state is not JobState.FORGOTTEN), RETRYING)
#: The words of `by`: the origins of jobs that no application code has enqueued.
ORIGINS = ("cron", "hook")
#: The key for a value inside the arguments, which follows after a dot.
ARGS = "args"

#: The keys by name, in the order in which they are listed.
KEYS = {
    key.name: key
    for key in (
        Key("id", Kind.INTEGER, "the id", "id:17,18"),
        Key("state", Kind.CHOICE, "the state; retrying: scheduled for another attempt", "state:failed", STATES),
        Key("queue", Kind.TEXT, "the queue", "queue:mail,default"),
        Key("task", Kind.TEXT, "the task", "task:shop.*"),
        Key("tag", Kind.TEXT, "a tag", "-tag:test"),
        Key("error", Kind.TEXT, "the type or the cause of the last error", "error:TimeoutError"),
        Key("message", Kind.PHRASE, "a part of the last error's message", 'message:"connection refused"'),
        Key("fp", Kind.FINGERPRINT, "the fingerprint of the last error", "fp:9f2c03d1e5a7b6c4"),
        Key("age", Kind.DURATION, "the time since the job was enqueued", "age:>1h"),
        Key("finished", Kind.DURATION, "the time since it ended or failed", "finished:<1h"),
        Key("wait", Kind.DURATION, "the time from when it could start until it was claimed, or until now", "wait:>5m"),
        Key("run", Kind.DURATION, "the time that its handler has run", "run:>30s"),
        Key("attempt", Kind.INTEGER, "the number of attempts that have begun", "attempt:>3"),
        Key("prio", Kind.INTEGER, "the priority", "prio:<3"),
        Key("node", Kind.TEXT, "the name or the id of the node that runs or ran it", "node:web1"),
        Key("cron", Kind.TEXT, "the schedule that enqueued it", "cron:report"),
        Key("by", Kind.CHOICE, "what enqueued it: a schedule (cron), or a failure (hook)", "by:cron", ORIGINS),
        Key("after", Kind.TIME, "enqueued at this time or later", "after:2026-01-31T09:00"),
        Key("before", Kind.TIME, "enqueued before this time", "before:2026-01-31"),
        Key(ARGS, Kind.ARGUMENT, "a value inside the arguments", "args.user.id:42"),
    )
}
