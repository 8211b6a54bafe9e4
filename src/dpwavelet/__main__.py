"""`python -m dpwavelet` is the command line."""

from dpwavelet.cli import main

main()
