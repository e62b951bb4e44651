"""``python -m draem``."""

from draem.cli import main

if __name__ == "__main__":
    main()
