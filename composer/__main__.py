"""`python -m composer` is `compose`."""

from composer.cli import run

if __name__ == "__main__":
    run()
