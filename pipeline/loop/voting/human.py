"""The votes of a human round: asked for, waited for, and read, with what is needed to learn from them."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from rasura.manifests.run_layout import RECIPE, REVIEW_DATABASE
from rasura.manifests.storage import Store
from rasura.pipeline.loop.results import VotesResult
from rasura.pipeline.loop.state import SCORES, Loop, Waiting, round_path
from rasura.pipeline.loop.voting.best_first import (
    SceneTurns,
    add_inclusion,
    answer_until_yes,
    count_unasked,
    estimate_yes_rate,
    plan_turns,
    read_answers,
)
from rasura.pipeline.training import oracle
from rasura.pipeline.training import votes as vote_logs

if TYPE_CHECKING:
    from rasura.annotator.exchange.vote_rows import VoteRow


def collect_votes(loop: Loop, number: int, measure: Callable[[], bool]) -> VotesResult:
    """Collect a human round's votes; the ground-truth reviewer gives its own at once.

    Args:
        measure: compares the round's candidates with the truth; False where there is none.

    Raises:
        Waiting: there are not enough yet.
        NoTruth: the ground-truth reviewer has nothing to compare with.
    """
    recipe, run = loop.recipe, loop.open_round(number)
    candidates = vote_logs.index_candidates(run)
    turns = _plan_turns(loop, number)
    if recipe.reviewers == "oracle":
        if not measure():
            raise oracle.describe_missing_truth(run, len(candidates))
        oracle.write_votes(_list_oracle_votes(run, turns), run.sub("votes"))
    else:
        write_review_settings(loop, number)
        export_review(run)
    rows = loop.read_votes(number)
    tallies = vote_logs.tally_votes(rows)
    answers = read_answers({item: tallies[item] for item in candidates if item in tallies}, recipe.votes)
    if turns is None:
        done, count, noun = len(answers), len(candidates), f"candidates have {recipe.votes} vote(s)"
    else:
        done, count = sum(scene.is_done(answers) for scene in turns.values()), len(turns)
        noun = "scenes are done, of which the candidates are asked best first until one is accepted"
    if done < recipe.enough * count:
        raise Waiting(
            f"round {number} waits for people: {done} of {count} {noun}, {recipe.enough:.0%} must. "
            f"{describe_review(run)}"
        )
    yes = sum(tallies[item]["yes"] > tallies[item]["no"] for item in candidates if item in tallies)
    rate = None if turns is None else estimate_yes_rate(turns, answers)
    unasked = None if turns is None else count_unasked(rows, turns, answers) or None
    return VotesResult(len(candidates), len(answers), yes, recipe.reviewers, rate, unasked)


def describe_review(run: Store) -> str:
    """Describe how people vote on a round's candidates, and what comes then."""
    return (
        f"Review with: rasura review {run.uri} (each reviewer signs in with the link of `rasura review add-reviewer "
        f"{run.uri} NAME`; or put votes.jsonl into {run.uri}/votes); then give the same command again"
    )


def list_votes_to_learn_from(loop: Loop, number: int) -> "list[VoteRow]":
    """List a round's votes; of a round that asks best first, with the probability that each was asked for."""
    rows, turns = loop.read_votes(number), _plan_turns(loop, number)
    if turns is None:
        return rows
    return add_inclusion(rows, turns, read_answers(vote_logs.tally_votes(rows), loop.recipe.votes))


def _plan_turns(loop: Loop, number: int) -> dict[str, SceneTurns] | None:
    """Plan the turns of a round's candidates; None where all are asked."""
    settings = loop.recipe.rounds[number - 1]
    if settings.ask != "best_first":
        return None
    scenes = {item: row.scene for item, row in vote_logs.index_candidates(loop.open_round(number)).items()}
    scores: Mapping[str, float] = loop.read_json(f"{round_path(number)}/{SCORES}", {})
    return plan_turns(scenes, scores, settings, loop.recipe.seed)


def _list_oracle_votes(run: Store, turns: Mapping[str, SceneTurns] | None) -> list[dict[str, Any]]:
    """List the ground-truth reviewer's votes: on all candidates, or on those whose turn comes."""
    rows = oracle.list_votes(run)
    if turns is None:
        return rows
    asked = answer_until_yes(turns, {row["item"]: row["verdict"] == "yes" for row in rows})
    return [
        row | {"inclusion": asked[row["item"]].probability, "complete": asked[row["item"]].complete}
        for row in rows
        if row["item"] in asked
    ]


def write_review_settings(loop: Loop, number: int) -> None:
    """Write the settings of a round's review, so that `rasura review` asks for what the loop waits for.

    Where a scene's next candidate or the spot check's next page waits for an answer, nothing but the loop's number of
    votes is asked for: a third vote in doubtful cases would need a reviewer whom nobody promised.
    """
    recipe, settings = loop.recipe, loop.recipe.rounds[number - 1]
    votes = 1 if settings.kind == "auto" else recipe.votes
    review: dict[str, Any] = {"votes": votes, "near_votes": votes, "most_votes": votes, "seed": recipe.seed}
    if settings.ask == "best_first":
        review |= {"order": "best_first", "floor": settings.floor, "complete_scenes": settings.complete_scenes}
    elif settings.kind == "human":
        review["most_votes"] = max(3, votes)
    loop.open_round(number).write(RECIPE, yaml.safe_dump({"review": review}, sort_keys=False).encode())


def export_review(run: Store) -> None:
    """Copy the votes in the round's review into its `votes/`, where they can be read without the database."""
    from rasura.annotator.exchange.votes_file import export_votes
    from rasura.annotator.store.database import Database

    if (place := run.find(REVIEW_DATABASE)) is not None and place.is_file():
        database = Database(str(place), False)
        try:
            with database.read() as connection:
                export_votes(connection, run.sub("votes"))
        finally:
            database.close()
