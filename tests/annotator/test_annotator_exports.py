"""Votes out and in again: the log as Parquet and JSONL, verdicts, Label Studio's JSON, and the commands for them."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, environment
from sqlalchemy import Connection, select
from support.annotator.runs import CANDIDATES, make_run, people, row

from rasura.annotator.exchange.label_studio import export_label_studio
from rasura.annotator.exchange.votes_file import append_votes, compute_verdicts, export_votes, read_votes
from rasura.annotator.server.images import PictureReader
from rasura.annotator.stats.accounting import find_faults, read_accounting
from rasura.annotator.store import vote_log as votes
from rasura.annotator.store.database import Database, items
from rasura.annotator.store.items import load_queue
from rasura.annotator.store.leases import lease_items
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.vote_log import Submission
from rasura.manifests.storage import Store

POLICY = Policy(votes=2, near_votes=2, most_votes=3, honeypots=0.25)


@pytest.fixture
def database(where: str, tmp_path: Path) -> Iterator[Database]:
    """A review in which two have said all there is to say: votes, edits, undos, skips, flags."""
    opened = Database(where)
    load_queue(make_run(tmp_path / "run", 12, truth=8).store, opened, POLICY)
    for number, who in enumerate(people(opened, ["Ann", "Bób \N{GREEK SMALL LETTER ALPHA}"])):
        review(opened, who, number)
    yield opened
    opened.close()


def speak(connection: Connection, who: Reviewer, entry: Submission, kind: int) -> None:
    """A verdict or skip, and what else one does now and then: an edit, an undo, a flag."""
    name, item = entry.nonce, entry.item
    votes.cast_vote(connection, POLICY, who, entry, 100.0)
    if kind == 5:
        votes.cast_vote(connection, POLICY, who, Submission(item, f"{name}-again", "no", "seam", None, 1.0), 100.5)
    if kind == 6:
        votes.undo_vote(connection, POLICY, who, f"{name}-undo", 100.6)
        votes.cast_vote(connection, POLICY, who, Submission(item, f"{name}-then", "yes"), 100.7)
    if kind == 7:
        votes.flag_item(connection, who, Submission(item, f"{name}-flag", remark='half "it"\n…'), 101.0)


def review(database: Database, who: Reviewer, shift: int) -> None:
    """One who says something of everything."""
    count = 0
    while found := database.write(partial(lease_items, policy=POLICY, reviewer=who, want=4, now=0.0)):
        for item in found:
            count += 1
            kind = (count + shift) % 9
            verdict, reason = [("yes", None), ("no", "shadow"), ("unsure", None), (None, None)][kind % 4]
            entry = Submission(item.id, f"{who.id}-{count}", verdict, reason, None, count / 10, "ab12", "1")
            database.write(partial(speak, who=who, entry=entry, kind=kind))


def said(database: Database) -> list[tuple[str, str, str]]:
    with database.read() as connection:
        names = {who: str(who) for who in range(9)}
        return sorted((item, names[who], verdict) for item, who, verdict in votes.list_verdicts(connection))


def test_comes_out_and_goes_in(tmp_path: Path, database: Database) -> None:
    """The log comes out whole, in both forms alike, and makes the same review again elsewhere: the same verdicts by the
    same people, nothing twice however often it is brought in."""
    with database.read() as connection:
        told = export_votes(connection, Store(tmp_path / "out"))
        whole = len(votes.read_entries(connection))
    assert told.entries == whole > 30
    forms = [read_votes(tmp_path / "out" / f"votes.{suffix}") for suffix in ("parquet", "jsonl")]
    assert forms[0] == forms[1]
    assert {entry["action"] for entry in forms[0]} == {"vote", "edit", "undo", "skip", "flag"}
    other = Database(tmp_path / "other.sqlite")
    load_queue(Store(tmp_path / "run"), other, POLICY)
    first = append_votes(other, POLICY, forms[0])
    assert (first.added, first.duplicates, first.unknown) == (whole, 0, 0)
    again = append_votes(other, POLICY, forms[1])
    assert (again.added, again.duplicates, again.unknown) == (0, whole, 0)
    assert said(other) == said(database)
    with other.read() as connection, database.read() as here:
        assert find_faults(connection) == []
        assert compute_verdicts(connection) == compute_verdicts(here)
        assert compute_verdicts(connection, weighted=True) == compute_verdicts(here, weighted=True)
    other.close()


def test_verdicts(tmp_path: Path, database: Database) -> None:
    """`verdicts.parquet` has one row for each candidate with a vote, what most say, and why where it is no; items with
    a known answer are not in it."""
    with database.read() as connection:
        export_votes(connection, Store(tmp_path / "out"))
        candidates = set(connection.execute(select(items.c.row_id).where(items.c.kind == "candidate")).scalars())
    rows = pq.ParquetFile(tmp_path / "out" / "verdicts.parquet").read(use_threads=False).to_pylist()
    assert {one["row_id"] for one in rows} <= candidates
    assert rows == sorted(rows, key=lambda one: one["row_id"])
    for one in rows:
        counts = {word: one[word] for word in ("yes", "no", "unsure")}
        assert one["votes"] == sum(counts.values())
        most = [word for word, count in counts.items() if count == max(counts.values())]
        assert one["verdict"] == (most[0] if len(most) == 1 else None)
        assert (one["reason"] is not None) == (one["verdict"] == "no")


def test_votes_of_what_the_run_lost(tmp_path: Path, database: Database) -> None:
    """Votes on items that a run does not hold are counted and left out; the others come in."""
    with database.read() as connection:
        export_votes(connection, Store(tmp_path / "out"))
    entries = read_votes(tmp_path / "out" / "votes.jsonl")
    run = make_run(tmp_path / "less", 0)
    run.flow("candidates", [row(n, "edited") for n in range(3)], CANDIDATES)
    other = Database(tmp_path / "less.sqlite")
    load_queue(run.store, other, POLICY)
    told = append_votes(other, POLICY, entries)
    assert told.added + told.unknown == len(entries)
    assert told.added < len(entries)
    with other.read() as connection:
        assert find_faults(connection) == []
        assert read_accounting(connection).candidates == 3
    other.close()


def test_label_studio(tmp_path: Path, database: Database) -> None:
    """Tasks go out with pictures, predictions and one annotation a vote, in Label Studio's form, and come back as the
    same verdicts; what it adds (ids, numbers for people, a new annotation) is read, too."""
    with database.read() as connection:
        count = export_label_studio(connection, tmp_path / "ls", PictureReader(Store(tmp_path / "run")))
    tasks = json.loads((tmp_path / "ls" / "label-studio.json").read_text())
    assert count == len(tasks) == 12
    for task in tasks:
        for key in ("before", "mask", "after"):
            name = task["data"][key].partition("?d=")[2]
            assert (tmp_path / "ls" / name).stat().st_size > 50
        assert 0 <= task["predictions"][0]["score"] <= 1
    config = (tmp_path / "ls" / "label-studio.xml").read_text()
    assert 'hotkey="y"' in config
    assert set(re.findall(r'value="\$(\w+)"', config)) == {"before", "mask", "after"}  # $source is the task itself
    other = Database(tmp_path / "other.sqlite")
    load_queue(Store(tmp_path / "run"), other, POLICY)
    told = append_votes(other, POLICY, read_votes(tmp_path / "ls" / "label-studio.json"))
    assert told.unknown == 0
    here, there = (sorted((item, verdict) for item, _, verdict in said(one)) for one in (database, other))
    assert there == here  # the numbers of the reviewers are those of their first votes in the file
    tasks[0]["annotations"] = [
        {
            "id": 7,
            "completed_by": 3,
            "created_at": "2026-11-01T10:00:00.5Z",
            "lead_time": 3.25,
            "was_cancelled": False,
            "result": [
                {"from_name": "verdict", "to_name": "result", "type": "choices", "value": {"choices": ["no"]}},
                {"from_name": "reason", "type": "choices", "value": {"choices": ["blur or seam"]}},
                {"from_name": "remark", "type": "textarea", "value": {"text": ["a", "b"]}},
            ],
        }
    ]
    (tmp_path / "back.json").write_text(json.dumps(tasks[:1]))
    (entry,) = read_votes(tmp_path / "back.json")
    assert (entry["reviewer"], entry["verdict"], entry["reason"], entry["remark"], entry["seconds"]) == (
        "Label Studio 3",
        "no",
        "seam",
        "a b",
        3.25,
    )
    assert append_votes(other, POLICY, [entry]).added == 1
    assert append_votes(other, POLICY, read_votes(tmp_path / "back.json")).duplicates == 1
    other.close()


@pytest.mark.slow
def test_the_commands(tmp_path: Path) -> None:
    """A reviewer is added, votes come in and go out, and every candidate is accounted for, by commands; what is wrong
    is told and leaves nothing behind."""
    run = make_run(tmp_path / "run", 4)
    code = "import sys; from rasura.pipeline.cli import review; getattr(review, sys.argv.pop(1))()"

    def command(*words: object, ok: bool = True) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, words)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment(),
            timeout=600,
        )
        assert (done.returncode == 0) == ok, done.stderr
        return done.stdout if ok else done.stderr

    assert "no review" in command("review", "check", run.store.uri, ok=False)
    assert not (tmp_path / "run" / "review").exists()
    assert "no plan.json" in command("review", "add-reviewer", tmp_path, "Ann", ok=False)
    link = command("review", "add-reviewer", run.store.uri, "Ann", "--public-url", "https://review.example/").strip()
    assert link.startswith("https://review.example/#token=")
    assert "there is a reviewer 'Ann'" in command("review", "add-reviewer", run.store.uri, "Ann", ok=False)
    assert command("review", "new-token", run.store.uri, "Ann").strip() != link
    item = {"item": "x", "place_table": "candidates", "place_shard": "candidates0", "place_row": 2, "variant": "target"}
    entry = {**item, "reviewer": "Zoë", "time": 5, "action": "vote", "verdict": "yes", "nonce": "zoe-00000001"}
    (tmp_path / "in.jsonl").write_text(json.dumps(entry) + "\n")
    assert command("votes", "import", run.store.uri, tmp_path / "in.jsonl").startswith("1 entry added")
    assert command("review", "check", run.store.uri).startswith("4 candidates = 1 voted + 0 leased + 3 waiting; 1 vote")
    out = command("votes", "export", run.store.uri, "--out", tmp_path / "out", "--label-studio")
    assert "1 entry of the log, 1 item with a verdict" in out
    assert (tmp_path / "out" / "label-studio.json").exists()
    assert "Zoë can no longer sign in" in command("review", "remove-reviewer", run.store.uri, "Zoë")
    wrong = command("votes", "import", run.store.uri, tmp_path / "in.jsonl", "--set", "vote=2", ok=False)
    assert "--set vote=2: unknown key 'vote'; did you mean 'votes'?" in wrong
