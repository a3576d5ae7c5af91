"""Makes `python -m qworkerd` the same as `qworker`."""

from qworkerd.cli.main import main

main(prog_name="qworker")
