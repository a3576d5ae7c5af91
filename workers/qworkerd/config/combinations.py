"""Settings that have no effect because of other settings."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from qworkerd.config.settings import Settings, WrongOption

#: When a setting has no effect: the condition, the settings, and what to say about them.
_RULES: Final[tuple[tuple[Callable[[Settings], bool], tuple[str, ...], str], ...]] = (
    (
        lambda settings: settings.inline,
        ("processes", "metrics_port", "metrics_host", "metrics_labels", "boot_timeout"),
        "with --inline, which runs one worker in this process, and serves no metrics: leave out one of them",
    ),
    (
        lambda settings: settings.inline,
        ("timeout",),
        "with --inline, without timeouts: leave out one of them",
    ),
    (
        lambda settings: settings.metrics_port is None,
        ("metrics_host", "metrics_labels"),
        "without --metrics-port, on which metrics are served: add it",
    ),
    (
        lambda settings: settings.job_logs != "all",
        ("log_days",),
        "unless job_logs is all: add --job-logs all; lines of failed attempts are kept with the job",
    ),
)


def without_effect(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    """Return a line for each setting that was set, and has no effect.

    Raises WrongOption for those of the command line, which were typed for an effect. Those of the environment and of
    files may be meant for other nodes.
    """
    found = dict(_find(settings, origins))
    if wrong := [line for name, line in found.items() if origins[name].startswith("-")]:
        raise WrongOption("\n".join(wrong))
    return list(found.values())


def _find(settings: Settings, origins: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for applies, names, why in _RULES:
        for name in names if applies(settings) else ():
            if origins[name] != "default" and getattr(settings, name) is not None and name not in seen:
                seen.add(name)
                yield name, f"{name} = {getattr(settings, name)!r} from {origins[name]} has no effect {why}"
