"""`python -m rasura` and the command `rasura`."""

import sys
from pathlib import Path


def main() -> None:
    """Run the command line; an error that the user can mend is one sentence, not a traceback."""
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))  # for stages of one's own; last, so that nothing there hides a package
    from rasura.pipeline.cli.interrupts import explain_interrupt, raise_on_sigterm

    raise_on_sigterm()
    with explain_interrupt():  # before a command has begun, or while its error is explained
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
