"""`python -m fuzzyclip.cli`: the command `fuzzyclip`, where its script is not on the path."""

from fuzzyclip.cli import app

app(prog_name="fuzzyclip")
