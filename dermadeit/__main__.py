"""`python -m dermadeit`."""

from dermadeit.cli import app

app(prog_name="python -m dermadeit")
