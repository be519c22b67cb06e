"""`python -m kadence`: the `kadence` command."""

from kadence.cli import command

command()
