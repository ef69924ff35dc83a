"""`python -m gitract.cli`, where the command itself is not on the path."""

from gitract.cli import main

main()
