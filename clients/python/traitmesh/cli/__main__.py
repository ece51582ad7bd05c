"""`python -m traitmesh.cli` is `traitmesh`."""

from traitmesh.cli import main

main(prog_name="traitmesh")
