"""`python -m rasura` and the command `rasura`."""

import sys
import traceback
from pathlib import Path


def main() -> None:
    """Run the command line; an error that the user can mend is one sentence, not a traceback."""
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))  # for stages of one's own; last, so that nothing there hides a package
    from rasura.manifests.safety.text import LINES, escape_controls
    from rasura.pipeline.cli.interrupts import explain_interrupt, raise_on_signals

    raise_on_signals()
    with explain_interrupt():  # before a command has begun, or while its error is explained
        from rasura.pipeline.cli.app import app, explain
        from rasura.pipeline.cli.output import find_stdout_fault

        try:
            app(prog_name="rasura")
        except SystemExit:
            if fault := find_stdout_fault():
                print(f"error: {fault}", file=sys.stderr)
                sys.exit(1)
            raise
        except Exception as error:
            text = find_stdout_fault() or explain(error)
            text = traceback.format_exc() if text is None else f"error: {text}"  # a traceback: a fault of Rasura's own
            print(escape_controls(text, LINES).rstrip(), file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    if not sys.flags.safe_path:  # what `-m` has put first, last, as above
        sys.path.append(sys.path.pop(0))
    main()
