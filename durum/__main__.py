"""`python -m durum`, the same as the durum command."""

from durum.cli import main

if __name__ == "__main__":
    main.main()
