"""`python -m zeuxis` is the command `zeuxis`."""

from zeuxis.cli import main

main()
