"""``python -m recast``: the command."""

from recast.cli import main

if __name__ == "__main__":
    main()
