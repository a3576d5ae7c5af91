"""The checks of `qworker doctor`: each finds one kind of problem, and names its remedy."""
