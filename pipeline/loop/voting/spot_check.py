"""The decision about an automatic round: by score alone, or certified by votes on a sample of what would be kept."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from rasura.discriminator.calibration import Rule
from rasura.discriminator.selection import Candidate as Scored
from rasura.discriminator.selection import Selection, select_candidates
from rasura.pipeline.loop.decide import Candidate, Decision, Decisions, find_verdict
from rasura.pipeline.loop.state import SPOT_CHECK, Loop, Waiting
from rasura.pipeline.loop.voting.human import describe_review, export_review, write_review_settings
from rasura.pipeline.training import oracle
from rasura.pipeline.training import votes as vote_logs


def decide_by_score(
    loop: Loop,
    number: int,
    candidates: Sequence[Candidate],
    items: Mapping[str, str],
    rule: Rule,
) -> Decisions:
    """Decide about an automatic round's candidates, and ask for the votes that its spot check needs.

    Args:
        items: id of the item that people vote on, by the candidate's id.

    Raises:
        Waiting: votes of people are missing.
    """
    from rasura.annotator.store.items import ASKED

    run = loop.open_round(number)
    selection = _select(loop, number, candidates, items, rule)
    while selection.waiting:
        asked = [items[id] for id in (*selection.voted, *selection.waiting)]
        run.write(ASKED, json.dumps(sorted(asked)).encode())
        if loop.recipe.reviewers == "oracle":
            oracle.write_votes([row for row in oracle.list_votes(run) if row["item"] in set(asked)], run.sub("votes"))
        else:
            write_review_settings(loop, number)
            export_review(run)
        before, selection = selection, _select(loop, number, candidates, items, rule)
        if selection.waiting == before.waiting:
            raise Waiting(
                f"round {number} waits for the votes of its spot check: {len(selection.voted)} of "
                f"{loop.recipe.rounds[number - 1].spot_check} are there, {len(selection.waiting)} are asked for now. "
                f"{describe_review(run)}"
            )
    result = {"votes": len(selection.voted), "certified": selection.certified, "kept": len(selection.kept)}
    run.write(SPOT_CHECK, json.dumps(result).encode())
    unscored = {row.id: Decision(False, "no score") for row in candidates if row.score is None}
    tallies = _tally_votes(loop, number)
    verdicts = {id: find_verdict(tallies.get(item, {})) for id, item in items.items()}
    return unscored | {id: Decision(*decision, verdicts[id]) for id, decision in selection.decisions.items()}


def _tally_votes(loop: Loop, number: int) -> dict[str, Counter[str]]:
    """Count the votes of a round's spot check by item; none where it has no such check."""
    has_check = loop.recipe.rounds[number - 1].spot_check
    return vote_logs.tally_votes(loop.read_votes(number)) if has_check else {}


def _select(
    loop: Loop, number: int, candidates: Sequence[Candidate], items: Mapping[str, str], rule: Rule
) -> Selection:
    """Select what the votes so far allow. A candidate has a yes where it has more of them than of any other verdict."""
    recipe, settings = loop.recipe, loop.recipe.rounds[number - 1]
    tallies = _tally_votes(loop, number)
    votes = {
        id: 2 * tallies[item]["yes"] > sum(tallies[item].values()) for id, item in items.items() if item in tallies
    }
    scored = [Scored(row.id, row.scene, row.remover, row.score) for row in candidates if row.score is not None]
    return select_candidates(
        scored,
        rule,
        overall=recipe.discriminator.thresholds == "overall",
        remover_share=recipe.discriminator.remover_share,
        spot_check=settings.spot_check,
        votes=votes,
        seed=recipe.seed,
    )
