"""The program's first step: Ctrl-C while it is still loading is no traceback.

Imports nothing that takes time before somebody listens for it.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from sharedcache.cli.main import main as command  # noqa: PLC0415 - see the module

        command()
    except KeyboardInterrupt:
        sys.stderr.write("\nsharedcache: interrupted\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
