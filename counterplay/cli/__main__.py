"""`python -m counterplay.cli`."""

from counterplay.cli import main

main()
