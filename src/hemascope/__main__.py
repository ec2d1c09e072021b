"""The `hemascope` command, `python -m hemascope`, and `torchrun -m hemascope train …`."""

from hemascope.stopping import leave_on_signals


def main() -> None:
    """Runs the command line, which takes a second to import."""
    leave_on_signals()
    from hemascope.cli import main as run

    run()


if __name__ == "__main__":
    main()
