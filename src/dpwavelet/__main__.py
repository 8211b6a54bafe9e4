"""`dpwavelet` and `python -m dpwavelet`: the command line, loaded when it is needed."""

import sys

from dpwavelet import __version__


def main() -> None:
    """Run the command line. The version is told at once; everything else loads torch first."""
    if sys.argv[1:] == ["--version"]:
        print(__version__)
        return
    try:
        from dpwavelet import cli
    except KeyboardInterrupt:  # it takes seconds
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
