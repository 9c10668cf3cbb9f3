"""A run's own account holds its review: `status` counts every candidate, `verify` finds what does not follow."""

import json
import sqlite3
from functools import partial
from pathlib import Path

import yaml
from conftest import rasura
from support.annotator.runs import make_run, people

from rasura.annotator.store import vote_log as votes
from rasura.annotator.store.database import Database
from rasura.annotator.store.items import load_queue
from rasura.annotator.store.leases import lease_items
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.vote_log import Submission
from rasura.manifests.run_layout import REVIEW_DATABASE
from rasura.manifests.storage import Store
from rasura.pipeline.run.review import read_review_accounting


def test_status_and_verify_account_for_the_review(tmp_path: Path) -> None:
    """Of nine candidates two are judged, one is open on somebody's page and six wait: `status` says so, as text and as
    JSON, and `verify` is content. A vote that vanishes from the numbers but not from the log is a fault that `verify`
    tells. A run without a review has none."""
    run = make_run(tmp_path / "run", 9)
    assert read_review_accounting(Store(tmp_path / "run")) is None
    (tmp_path / "run" / "review").mkdir()
    policy = Policy(votes=1, near_votes=1, most_votes=1, honeypots=0)
    database = Database(str(tmp_path / "run" / REVIEW_DATABASE), create=True)
    load_queue(run.store, database, policy)
    (ann,) = people(database, ["Ann"])
    for number in range(2):
        (item,) = database.write(partial(lease_items, policy=policy, reviewer=ann, want=1, now=float(number)))
        entry = Submission(item.id, f"vote {number}", "yes")
        database.write(lambda connection, entry=entry: votes.cast_vote(connection, policy, ann, entry, 1.0))
    database.write(partial(lease_items, policy=policy, reviewer=ann, want=1, now=9.0))
    database.close()
    counts = json.loads(rasura("status", tmp_path / "run", "--json").stdout)["review"]
    rest = {"withdrawn": 0, "votes": 2, "not_asked": 0}
    assert counts == {"candidates": 9, "voted": 2, "leased": 1, "waiting": 6, **rest}
    assert "9 candidates = 2 voted + 1 leased + 6 waiting; 2 votes" in rasura("status", tmp_path / "run").stdout
    assert ", review)" in rasura("verify", tmp_path / "run").stdout
    with sqlite3.connect(tmp_path / "run" / REVIEW_DATABASE) as tampered:
        tampered.execute("UPDATE items SET votes = 0 WHERE votes = 1")
    tampered.close()
    done = rasura("verify", tmp_path / "run", check=False)
    assert done.returncode == 1
    assert "review: item" in done.stdout


def test_a_recipe_says_how_to_review(tmp_path: Path) -> None:
    """`review:` in a recipe is checked before anything starts, like the rest of it."""
    recipe = {"name": "r", "flows": {"a": {"source": {"studio": {}}}}, "review": {"votes": 3, "ordering": "random"}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    done = rasura("run", tmp_path / "r.yaml", "--into", tmp_path / "run", check=False)
    assert done.returncode == 1
    assert "ordering" in done.stderr
    assert "did you mean 'order'?" in done.stderr
