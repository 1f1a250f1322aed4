"""``python -m hemix`` is the command ``hemix``."""

from hemix.cli import main

if __name__ == "__main__":
    main()
