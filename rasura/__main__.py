"""`python -m pipeline` and the command `rasura`."""

import sys


def main() -> None:
    """Runs the command line; an error that a person can mend is one sentence, not a traceback."""
    from rasura.pipeline.cli.app import app, explain

    try:
        app(prog_name="rasura")
    except Exception as error:
        if (text := explain(error)) is None:
            raise
        print(f"error: {text}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
