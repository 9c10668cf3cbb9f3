"""Fault injection: a small job, disturbed in many ways at four moments; nothing false may be called done.

    python -m benchmarks chaos [--kinds NAME[,NAME…]] [--moments NAME[,NAME…]] [--folder FOLDER] [--again]

A row is printed for each case as it ends. Cases that are done are left out when the command is started again; `--again`
carries them out anew. The exit status is 1 where something does not hold. Some kinds need root, for mounts; they are
skipped with the reason where a mount is refused.
"""

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT
from benchmarks.engine.chaos_damage import DAMAGE, has_come_again, undo_work
from benchmarks.engine.chaos_job import (
    MOMENTS,
    Ending,
    Job,
    Reference,
    keep_results,
    kill_marked,
    make_reference,
    resume,
    run_tool_of,
    wait_for_moment,
    wait_for_none,
    write_job,
)
from benchmarks.engine.chaos_kinds import FILES, PROCESSES, CannotInject, Case, Kind
from benchmarks.engine.chaos_nodes import NODES
from benchmarks.engine.chaos_store import STORE

KINDS: Mapping[str, Kind] = {**FILES, **PROCESSES, **DAMAGE, **STORE, **NODES}


def make_case(folder: Path, kind: str, moment: str, photos: Path, stack: contextlib.ExitStack) -> Case:
    """Make the folder of a case, with inputs as they should be."""
    place = folder / "c"
    for disk in ("disk", "small", "r"):  # a command that was killed leaves them mounted
        subprocess.run(["umount", "-l", str(place / disk)], capture_output=True)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    away = photos.with_name("photos.away")
    if away.exists():
        shutil.rmtree(photos, ignore_errors=True)
        away.rename(photos)
    job = Job(place, str(place / "run"), photos)
    write_job(place, photos)
    case = Case(job, photos, moment, stack)
    if kind in DAMAGE:
        shutil.copytree(folder / "reference" / "run", job.run)
        undo_work(job.run, moment)
        case.has_come = lambda moment: has_come_again(job.run, moment)
    KINDS[kind].prepare(case)
    return case


def disturb(case: Case, name: str) -> Ending:
    """Start the run, bring the fault about at its moment, and wait for its end.

    Raises:
        CannotInject: the moment did not come, or the fault cannot be brought about then.
    """
    kind, job = KINDS[name], case.job
    if name in DAMAGE and case.moment == "start":
        kind.inject(case)
        job.start()
        return job.finish()
    job.start()
    if not wait_for_moment(job, case.moment, case.has_come):
        ending = job.finish()
        if ending.status != 0:
            case.faults.append("it ended before the moment came")
            return ending
        raise CannotInject("the run ended before the moment came")
    try:
        kind.inject(case)
    finally:
        if job.process is not None and not name.startswith("stop driver"):
            resume(job)
    timer = None
    if kind.passes_after_s is not None:
        timer = threading.Timer(kind.passes_after_s, kind.undo, [case])
        timer.start()
    ending = job.finish(kind.limit_s)
    if timer is not None:
        timer.join()
    kind.check(case, ending)
    return ending


def carry_out(folder: Path, name: str, moment: str, reference: Reference, photos: Path) -> dict[str, Any]:
    """Carry out a case: the disturbed run, and the same command after the cause is gone.

    Returns:
        The result, as it is kept.
    """
    kind = KINDS[name]
    result: dict[str, Any] = {"case": f"{name} / {moment}", "skipped": "", "faults": []}
    with contextlib.ExitStack() as stack:
        case = Case(Job(folder, str(folder), photos), photos, moment, stack)
        try:
            case = make_case(folder, name, moment, photos, stack)
            ending = disturb(case, name)
        except CannotInject as reason:
            for token in case.job.tokens:
                kill_marked(token)
            return result | {"skipped": str(reason)}
        first = case.job.token
        faults = case.faults
        result |= {"status": ending.status, "seconds": round(ending.seconds, 1), "line": ending.last_line[:160]}
        faults += judge_ending(case, kind, name, ending, reference)
        if kind.lingering_s <= 15 and (left := wait_for_none(first, kind.lingering_s)):
            faults.append(f"{len(left)} processes left: {', '.join(sorted(set(left)))[:60]}")
            kill_marked(first)
        if kind.passes_after_s is None:
            kind.undo(case)
        faults += finish_case(case, name, reference)
        if kind.lingering_s > 15 and (left := wait_for_none(first, kind.lingering_s)):
            faults.append(
                f"{len(left)} processes left after {kind.lingering_s:.0f} s: {', '.join(sorted(set(left)))[:60]}"
            )
        for token in case.job.tokens:
            kill_marked(token)
        result["faults"] = faults
    return result


def judge_ending(case: Case, kind: Kind, name: str, ending: Ending, reference: Reference) -> list[str]:
    """Judge the end of a disturbed run."""
    faults = []
    if ending.status is None:
        faults.append("it hung")
    elif ending.status not in (0, 1, *kind.statuses):
        faults.append(f"exit status {ending.status}")
    if ending.has_trace:
        faults.append("a stack was shown")
    if kind.must_finish and ending.status != 0:
        faults.append(f"it did not finish ({ending.status})")
    if ending.status == 1 and not ending.text.strip():
        faults.append("it ended without a word")
    if ending.status == 0:
        differences = reference.find_differences(case.fetch())
        if name in DAMAGE and differences:
            # what rots after it was read is found by `verify`
            verified = run_tool_of(case.job, "verify")
            if verified.status == 0:
                faults += [f"false done: {text}" for text in differences]
            if verified.has_trace:
                faults.append("verify showed a stack")
        elif differences:
            faults += [f"false done: {text}" for text in differences]
    return faults


def finish_case(case: Case, name: str, reference: Reference) -> list[str]:
    """Start the same command again, when the cause is gone, and compare with the undisturbed run."""
    faults = []
    if name in DAMAGE and reference.find_differences(case.fetch()):
        mended = run_tool_of(case.job, "verify", "--mend")
        if mended.has_trace or mended.status == 2:
            faults.append(f"verify --mend ended with {mended.status}: {mended.last_line[:60]}")
    case.job.prefix = []
    case.job.start(name="again")
    ending = case.job.finish()
    if ending.status != 0:
        faults.append(f"the same command ended with {ending.status}: {ending.last_line[:100]}")
    faults += [f"in the end: {text}" for text in reference.find_differences(case.fetch())]
    if left := wait_for_none(case.job.token, 15):
        faults.append(f"{len(left)} processes left by the same command: {', '.join(sorted(set(left)))[:60]}")
    return faults


def print_row(result: Mapping[str, Any]) -> None:
    """Print the row of a case."""
    if result["skipped"]:
        print(f"{result['case']:<38} skipped: {result['skipped']}", flush=True)
        return
    verdict = "holds" if not result["faults"] else "; ".join(result["faults"])
    line = f"{result['case']:<38} {result['status']!s:>4} {result['seconds']:>6} s  {verdict}"
    print(line if not result["line"] else f"{line}  | {result['line'][:100]}", flush=True)


def print_totals(results: Mapping[str, Mapping[str, Any]]) -> bool:
    """Print the totals. Returns True where all that was carried out holds."""
    done = [result for result in results.values() if not result["skipped"]]
    texts = [text for result in done for text in result["faults"]]
    kinds = {result["case"].partition(" / ")[0] for result in done}

    def count(*parts: str) -> int:
        return sum(any(part in text for part in parts) for text in texts)

    print(
        f"{len(done)} cases of {len(kinds)} kinds, {len(results) - len(done)} skipped; false done: "
        f"{count('false done')}; rows lost: {count('rows lost')}; doubled: {count('rows doubled')}; processes left: "
        f"{count('processes left')}; stacks shown: {count('stack')}; hung: {count('hung')}; not the undisturbed bytes: "
        f"{count('in the end')}; all that holds: {sum(not result['faults'] for result in done)} of {len(done)}"
    )
    return not texts


def main() -> None:
    """Carry out the cases that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--kinds", default="", help=f"of: {', '.join(KINDS)}")
    parser.add_argument("--moments", default=",".join(MOMENTS), help="of: " + ", ".join(MOMENTS))
    parser.add_argument(
        "--folder", type=Path, default=Path("/tmp/rasura-chaos"), help="a short path: sockets are in it"
    )
    parser.add_argument("--again", action="store_true", help="carry out cases that are done, too")
    options = parser.parse_args()
    kinds = [name.strip() for name in options.kinds.split(",") if name.strip()] or list(KINDS)
    if unknown := [name for name in kinds if name not in KINDS]:
        sys.exit(f"no kind is called '{unknown[0]}'; choose from: {', '.join(KINDS)}")
    if ROOT in options.folder.absolute().parents:
        sys.exit("name a folder outside of this project")
    for number in (signal.SIGINT, signal.SIGHUP):  # a job in the background ignores them, and so would the runs
        signal.signal(number, signal.default_int_handler)
    options.folder.mkdir(parents=True, exist_ok=True)
    reference, photos = make_reference(options.folder)
    wanted = [f"{name} / {moment}" for name in kinds for moment in options.moments.split(",")]
    with keep_results(options.folder / "results.jsonl") as (done, add):
        results = {case: done[case] for case in wanted if case in done and not options.again}
        for case in wanted:
            if case in results:
                continue
            name, _, moment = case.partition(" / ")
            results[case] = carry_out(options.folder, name, moment, reference, photos)
            add(results[case])
            print_row(results[case])
    if not print_totals(results):
        sys.exit(1)
