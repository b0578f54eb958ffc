"""`python -m tolmach`: the command, where no script of it is installed."""

from tolmach.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
