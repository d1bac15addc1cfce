"""``python -m archlab`` is the command line."""

from archlab.cli import main

if __name__ == "__main__":
    main()
