"""One self-contained HTML page about a loop: its rounds beside RORem's, whether the promise was kept, its judges, and
candidates to look at.

Everything is read from what the steps left; nothing is run again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rasura.discriminator import calibration, evaluation
from rasura.manifests.parquet import read_parquet
from rasura.manifests.schemas import TRIPLET
from rasura.manifests.shards import read_manifest
from rasura.manifests.storage import Store
from rasura.pipeline.loop import table as loop_table
from rasura.pipeline.loop.candidates import TRUTH
from rasura.pipeline.loop.state import Loop
from rasura.pipeline.report import html as markup
from rasura.pipeline.report import loop_charts
from rasura.pipeline.report import thumbnails as gallery
from rasura.pipeline.report.html import counted, data, empty, numbers, plot, text
from rasura.pipeline.training import oracle
from rasura.pipeline.training import votes as loop_votes
from rasura.pipeline.training.discriminator import EVALUATION

PICTURE_BYTES = 4_000_000
PICTURES = {name: TRIPLET[name] for name in ("source", "target", "mask")}
LIGHT = {name: TRIPLET[name] for name in ("id", "label", "remover")}
ROLES = gallery.Roles("source", "target", None, (), PICTURES)


@dataclass(frozen=True)
class Candidate:
    """A round's candidate, and what became of it. said: by whom the recipe asks. true: by the oracle, where known."""

    place: gallery.Place
    id: str
    item: str
    scene: str
    remover: str
    kept: bool
    score: float | None
    said: str | None
    true: bool | None


def render(store: Store, rows: int) -> str:
    """The page.

    Args:
        rows: candidates of each round that are shown of those that were kept, and as many of the others.

    Raises:
        NoLoop
    """
    loop = Loop.open(store.local or Path(store.uri))
    rounds = {number: candidates(loop, number) for number in range(1, len(loop.recipe.rounds) + 1)}
    sections = {"rounds": "Rounds", "promise": "The promise", "judges": "Judges", "candidates": "Candidates"}
    shown = _candidates(loop, rounds, rows) or empty("No round has candidates yet.")
    made = {
        "rounds": _rounds(loop), "promise": _promise(loop), "judges": _judges(loop, rounds),
        "candidates": markup.legend(["object"]) + shown,
    }  # fmt: skip
    main = "".join(f'<section id="{id}"><h2>{title}</h2>{made[id]}</section>' for id, title in sections.items())
    return markup.page(
        "report of a loop", loop.recipe.name, text(loop_table.stands(loop)), _totals(loop), sections, main
    )


def candidates(loop: Loop, number: int) -> list[Candidate]:
    """A round's candidates in their order; none where it has not begun."""
    from rasura.annotator.store.items import item_id

    run = loop.round(number)
    if loop.result("inpaint", number) is None:
        return []
    kept = {one["id"] for one in _json(run, "kept.json", list)}
    scores, true = _json(run, "scores.json", dict), _json(run, TRUTH, dict)
    said = _said(loop, number)
    found = []
    for place, one in _light(run):
        item = item_id(place, "target")
        found.append(
            Candidate(
                place, one["id"], item, one["scene_id"] or one["id"], one["remover"] or "", one["id"] in kept,
                scores.get(item), said.get(item), true.get(item),
            )
        )  # fmt: skip
    return found


def _light(run: Store) -> Iterator[tuple[gallery.Place, dict[str, Any]]]:
    """Rows of the table of candidates without pictures; those of a shard that cannot be read are left out."""
    for line in read_manifest(run.sub("tables/candidates"))[0]:
        try:
            with run.open(f"tables/candidates/shards/{line.shard}.parquet") as source:
                rows = read_parquet(source, ["id", "scene_id", "remover"]).to_pylist()
        except gallery.UNREADABLE:
            continue
        yield from ((("candidates", line.shard, at), row) for at, row in enumerate(rows))


def _json(run: Store, name: str, kind: type[Any]) -> Any:
    return json.loads(run.read(name)) if run.exists(name) else kind()


def _said(loop: Loop, number: int) -> dict[str, str]:
    """What the votes that count say of each item: `yes`, `no`, `2 yes, 1 no`; a single no with its reason."""
    rows = loop_votes.of_folder(loop.votes(number), loop.recipe.reviewers)
    reasons = {row["item"]: row["reason"] for row in rows if row.get("reason")}
    found = {}
    for item, tally in loop_votes.standing(rows).items():
        if tally.total() > 1:
            found[item] = ", ".join(f"{count} {verdict}" for verdict, count in tally.most_common())
        else:
            verdict = next(iter(tally))
            why = f": {reasons[item]}" if verdict != "yes" and item in reasons else ""
            found[item] = f"{verdict}{why}"
    return found


def _totals(loop: Loop) -> str:
    given = loop_table.rows(loop)
    told = [row["success"] for row in given if row["success"] is not None]
    shown = {
        "rounds": f"{max(0, len(given) - 1)} of {len(loop.recipe.rounds)}",
        "triplets to start from": f"{given[0]['total']:,}" if given else "–",
        "triplets now": f"{given[-1]['total']:,}" if given else "–",
        "success at first": f"{told[0]:.1f} %" if told else "–",
        "success now": f"{told[-1]:.1f} %" if told else "–",
    }
    pairs = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in shown.items())
    return f'<dl class="totals">{pairs}</dl><p class="state">{text(loop_table.whose(loop))}</p>'


def _rounds(loop: Loop) -> str:
    given = loop_table.rows(loop)
    if not given:
        return empty("No step is done yet.")
    chart = plot(
        loop_table.chart(loop), "Success, training set and yield by round, beside RORem's; the table has this loop's"
    )
    further = loop_table.cells(loop_table.FURTHER, given)
    more = f"<h3>Further measures</h3>{numbers(further)}" if len(further[0]) > 1 else ""
    why: Mapping[str, str] = next((row["absent"] for row in reversed(given) if row["absent"]), {})
    absent = "; ".join(f"{loop_table.NAMES[name]}: {text(reason)}" for name, reason in why.items())
    return (
        f"{chart}{numbers(loop_table.cells(loop_table.TABLE_1, given))}"
        '<p class="note">Each value with its standard error. RORem’s rounds are its paper’s Table 1: success by people '
        f"on 500 test pictures.</p>{more}" + (f'<p class="note">Not measured: {absent}.</p>' if absent else "")
    )


def _promise(loop: Loop) -> str:
    recipe = loop.recipe
    if recipe.keep != "promise":
        return empty(f"This loop is a control that keeps “{text(recipe.keep)}”: no judge decides, nothing is promised.")
    promise = recipe.judge.promise
    lines = [("round", "scenes", "kept", "to people", "truly yes", "share [95 %]", "all candidates", "promise", "")]
    yes = known = 0
    for number, one in enumerate(recipe.rounds, 1):
        added = loop.result("add", number)
        if one.kind != "auto" or added is None:
            continue
        yes, known = yes + added["truly_yes"], known + added["truth_known"]
        base = f"{100 * added['base_yes'] / added['base_known']:.1f} %" if added["base_known"] else "–"
        lines.append(
            (
                f"{number}, automatic", f"{added['scenes']:,}", f"{added['kept']:,}", f"{added['left_to_people']:,}",
                *_share(added["truly_yes"], added["truth_known"]), base, f"≥ {100 * promise:.0f} %",
                _held(added["truly_yes"], added["truth_known"], promise, "nothing kept" if not added["kept"] else ""),
            )
        )  # fmt: skip
    if len(lines) == 1:
        return empty("No automatic round is done yet.")
    lines.append(
        ("together", "", "", "", *_share(yes, known), "", f"≥ {100 * promise:.0f} %", _held(yes, known, promise))
    )
    return (
        f"<p>Of what an automatic round keeps, at least {100 * promise:.0f} % are to be what a person would accept. "
        "What the truth says of it, where it is known; beside it the share among all candidates, which is what keeping "
        f"blindly would give.</p>{numbers(lines)}"
    )


def _share(yes: int, known: int) -> tuple[str, str]:
    if not known:
        return "–", "–"
    low, high = calibration.interval(yes, known)
    return f"{yes:,}/{known:,}", f"{100 * yes / known:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _held(yes: int, known: int, promise: float, otherwise: str = "") -> str:
    if not known:
        return otherwise or "truth not known"
    if yes >= promise * known:
        return "✓ held"
    return "✗ broken" if calibration.interval(yes, known)[1] < promise else "below, within its interval"


def _judges(loop: Loop, rounds: Mapping[int, Sequence[Candidate]]) -> str:
    parts = []
    for number in range(len(rounds) + 1):
        told = loop.result("judge" if number else "pretrain", number)
        if told is None:
            continue
        title = f"<h3>After round {number}" if number else "<h3>Before any vote"
        if not told["judge"]:
            why = empty(f"No judge: {text(told['why'])}.")
            parts.append(f"<article>{title}</h3>{why}</article>")
            continue
        votes = f"learned from {counted(told['learned'], 'vote')}, calibrated on {told['calibrated']:,}"
        chart = _measured(loop, Path(told["judge"]).name, rounds) or empty(
            "Nothing was judged yet that it had not learned from, or its truth is not known."
        )
        parts.append(f"<article>{title} <small>{votes}</small></h3>{chart}{_thresholds(told['keep'])}</article>")
    return "".join(parts) or empty("No judge has been trained yet.")


def _thresholds(keep: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [("remover", "votes above", "of them yes", "at least", "threshold", "")]
    for name, one in keep.items():
        found = one["threshold"] is not None
        lines.append(
            (
                name, f"{one['count']:,}" if found else "–", f"{one['yes']:,}" if found else "–",
                f"{100 * one['low']:.1f} %" if found else "–", f"{one['threshold']:.3f}" if found else "none",
                one["why"],
            )
        )  # fmt: skip
    return numbers(lines)


def _measured(loop: Loop, name: str, rounds: Mapping[int, Sequence[Candidate]]) -> str:
    """A judge's charts: of an evaluation that is in its folder, else of the automatic rounds that it scored."""
    file = loop.folder / "judges" / name / EVALUATION
    if file.is_file():
        told = json.loads(file.read_text())
        promise = told.get("promise") or {}
        at = (promise["kept"] / promise["of"], promise["precision"]) if promise.get("kept") else None
        return _charts(told, told["curve"], at, f"{counted(told['count'], 'vote')} that it had not seen")
    scored = [n for n in rounds if (loop.result("score", n) or {}).get("judge") == name]
    seen = [one for n in scored for one in rounds[n] if one.score is not None and one.true is not None]
    scores, true = np.array([one.score for one in seen], float), np.array([one.true for one in seen], float)
    if not len(seen) or len(set(true)) < 2:
        return ""
    told = evaluation.evaluate(scores, true, [one.remover for one in seen])
    picked = calibration.best_of_each(scores, [one.scene for one in seen])
    kept = [seen[k].true for k in picked if seen[k].kept]
    at = (len(kept) / len(picked), sum(map(bool, kept)) / len(kept)) if kept else None
    curve = [one._asdict() for one in evaluation.curve(scores[picked], true[picked])]
    where = " and ".join(map(str, scored))
    return _charts(told, curve, at, f"{counted(len(seen), 'candidate')} of round {where}, by the oracle")


def _charts(
    told: Mapping[str, Any], curve: Sequence[Mapping[str, Any]], at: tuple[float, float] | None, of: str
) -> str:
    reliable = [(one["score"], one["yes"]) for one in told["reliability"]]
    chart = loop_charts.of_judge(reliable, [(one["kept"], one["precision"]) for one in curve], at, of)
    figures = f"AUC {told['auc']:.3f}, calibration error {told['ece']:.3f}, on {of}"
    return f'{plot(chart, f"Reliability, and precision and yield: {figures}")}<p class="note">{text(figures)}.</p>'


def _candidates(loop: Loop, rounds: Mapping[int, Sequence[Candidate]], rows: int) -> str:
    chosen = {(n, kept): _drawn([one for one in found if one.kept is kept], rows) for n, found in rounds.items()
              for kept in (True, False)}  # fmt: skip
    side = gallery.side_for(3 * sum(map(len, chosen.values())), PICTURE_BYTES)
    parts = []
    for number, found in rounds.items():
        if loop.result("inpaint", number) is None:
            continue
        kind = "human" if loop.recipe.rounds[number - 1].kind == "human" else "automatic"
        decided = loop.result("add", number) is not None
        kept, whole = sum(one.kept for one in found), (loop.result("inpaint", number) or {})["candidates"]
        head = f"{kept:,} of {counted(len(found), 'candidate')} joined" if decided else "nothing is decided yet"
        head += f", {whole - len(found):,} cannot be read" if whole > len(found) else ""
        parts.append(f"<article><h3>Round {number}, {kind} <small>{head}</small></h3>")
        for which, title in ((True, "Joined the training set"), (False, "Did not" if decided else "Candidates")):
            if tiles := _tiles(loop.round(number), chosen[number, which], side, loop.recipe.reviewers):
                order = ", from the highest score to the lowest" if chosen[number, which][0].score is not None else ""
                of = kept if which else len(found) - kept
                shown = f"{len(tiles):,} of {of:,}{order}"
                parts.append(f'<h4>{title} <small>{shown}</small></h4><div class="sheet small">{"".join(tiles)}</div>')
        parts.append("</article>")
    return "".join(parts)


def _drawn(found: Sequence[Candidate], count: int) -> list[Candidate]:
    """Evenly over them, by score where they have one."""
    ranked = sorted(found, key=lambda one: -(one.score or 0.0))
    return [ranked[at] for at in gallery.drawn(len(ranked), count)]


def _tiles(run: Store, wanted: Sequence[Candidate], side: int, whose: str) -> list[str]:
    raws = {raw.get("id"): raw for raw in gallery.look(run, [one.place for one in wanted], LIGHT, PICTURES)}
    made = []
    for number, one in enumerate(wanted, 1):
        raw = raws.get(one.id) or {"id": one.id, "fault": raws.get(None, {}).get("fault", "it is not there")}
        chips = [data(one.remover)]
        if one.score is not None:
            chips.append(f"score {one.score:.2f}")
        if one.said:
            chips.append(_mark(f"{whose}: {one.said}", one.said.startswith("yes")))
        if one.true is not None and not (one.said and whose == oracle.NAME):  # it would only repeat itself
            chips.append(_mark("truly yes" if one.true else "truly no", one.true))
        made.append(markup.tile(gallery.example(raw, ROLES, side), number, chips))
    return made


def _mark(said: str, good: bool) -> str:
    return f'<b class="{"good" if good else "bad"}">{text(said)}</b>'
