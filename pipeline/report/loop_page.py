"""One HTML page about a loop: its rounds beside RORem's, whether the precision target was reached, its discriminators,
and its candidates.

Everything is read from what the steps have written; nothing is computed by a network again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rasura.discriminator import calibration, evaluation
from rasura.manifests.compacted.manifest import read_manifest
from rasura.manifests.parquet import read_parquet
from rasura.manifests.run_layout import shard_path, table_path
from rasura.manifests.schemas import TRIPLET, Kind
from rasura.manifests.storage import Store
from rasura.pipeline.loop import table
from rasura.pipeline.loop.results import AddResult, DiscriminatorResult, InpaintResult, ScoreResult, ThresholdResult
from rasura.pipeline.loop.state import SCORES, TRUTH, Loop, find_overruled_refusal
from rasura.pipeline.report import html, loop_charts, loop_target, thumbnails
from rasura.pipeline.report.galleries import Gallery, convert_values, write_galleries
from rasura.pipeline.report.html import escape_text, format_count, render_chart, render_note, render_numbers
from rasura.pipeline.report.pictures import INSIDE_BYTES, PictureFiles, describe_example, write_pictures
from rasura.pipeline.training.discriminator import EVALUATION
from rasura.pipeline.training.votes import tally_votes

PICTURES = {name: TRIPLET[name] for name in ("source", "target", "mask")}
LIGHT = {name: TRIPLET[name] for name in ("id", "label", "remover")}
ROLES = thumbnails.Roles("source", "target", None, (), PICTURES)

Point = tuple[float, float]


@dataclass(frozen=True)
class Candidate:
    """A candidate of a round, and what became of it.

    kept: it joined the training set. verdict: of the recipe's reviewers. true_yes: the oracle's; None without a truth.
    """

    place: thumbnails.Place
    id: str
    item: str
    scene: str
    remover: str
    kept: bool
    score: float | None
    verdict: str | None
    true_yes: bool | None


def render(store: Store, rows: int, files: PictureFiles | None = None) -> str:
    """Render the page of a loop.

    Args:
        rows: candidates of each round that get pictures, half of them of those that were kept.
        files: takes the pictures; None: all are inside the page.

    Raises:
        NoLoop: there is no loop in the folder.
    """
    loop, files = Loop.open(store), files or PictureFiles()
    rounds = {number: read_candidates(loop, number) for number in range(1, len(loop.recipe.rounds) + 1)}
    galleries = _build_galleries(loop, rounds, rows, files)
    sections = {
        "rounds": ("Rounds", _render_rounds(loop)),
        "target": ("Precision target", loop_target.render_target(loop)),
        "discriminators": ("Discriminators", _render_discriminators(loop, rounds)),
    }
    main = "".join(f'<section id="{id}"><h2>{title}</h2>{body}</section>' for id, (title, body) in sections.items())
    titles = {id: title for id, (title, _) in sections.items()} | {"rows": "Candidates"}
    if galleries:
        main += html.render_rows(html.render_legend(["object"]), "Candidates")
    else:
        note = render_note("No round has candidates yet.")
        main += f'<section id="rows"><h2>Candidates</h2>{note}</section>'
    data = f"{write_pictures(files)}\n{write_galleries(galleries)}"
    subtitle = escape_text(table.describe_progress(loop))
    return html.render_page("report of a loop", loop.recipe.name, subtitle, _render_totals(loop), titles, main, data)


def read_candidates(loop: Loop, number: int) -> list[Candidate]:
    """Read the candidates of a round in their order; [] where it has none yet."""
    from rasura.annotator.store.items import compute_item_id

    run = loop.open_round(number)
    if loop.read_result(InpaintResult, number) is None:
        return []
    kept = {ref["id"] for ref in _read_json(run, "kept.json", list)}
    scores, truth = _read_json(run, SCORES, dict), _read_json(run, TRUTH, dict)
    verdicts = _describe_votes(loop, number)
    candidates = []
    for place, row in _iterate_light(run):
        item = compute_item_id(place, "target")
        candidates.append(
            Candidate(
                place=place,
                id=row["id"],
                item=item,
                scene=row["scene_id"] or row["id"],
                remover=row["remover"] or "",
                kept=row["id"] in kept,
                score=scores.get(item),
                verdict=verdicts.get(item),
                true_yes=truth.get(item),
            )
        )
    return candidates


def _iterate_light(run: Store) -> Iterator[tuple[thumbnails.Place, dict[str, Any]]]:
    """Yield the candidates' rows without pictures; those of a shard that cannot be read are left out."""
    for record in read_manifest(run.sub(table_path("candidates")))[0]:
        try:
            with run.open(f"{table_path('candidates')}/{shard_path(record.shard)}") as source:
                rows = read_parquet(source, ["id", "scene_id", "remover"]).to_pylist()
        except thumbnails.UNREADABLE:
            continue
        yield from ((("candidates", record.shard, index), row) for index, row in enumerate(rows))


def _read_json(run: Store, name: str, kind: type[Any]) -> Any:
    return json.loads(run.read(name)) if run.exists(name) else kind()


def _describe_votes(loop: Loop, number: int) -> dict[str, str]:
    """Describe the votes that count on each item: `yes`, `2 yes, 1 no`, or a single no with its reason."""
    rows = loop.read_votes(number)
    reasons = {row["item"]: row["reason"] for row in rows if row.get("reason")}
    descriptions = {}
    for item, tally in tally_votes(rows).items():
        if tally.total() > 1:
            descriptions[item] = ", ".join(f"{count} {verdict}" for verdict, count in tally.most_common())
        else:
            verdict = next(iter(tally))
            reason = f": {reasons[item]}" if verdict != "yes" and item in reasons else ""
            descriptions[item] = f"{verdict}{reason}"
    return descriptions


def _render_totals(loop: Loop) -> str:
    rows = table.build_rows(loop)
    success = [row.test.success for row in rows if row.test.success is not None]
    totals = {
        "rounds": f"{max(0, len(rows) - 1)} of {len(loop.recipe.rounds)}",
        "triplets at the start": f"{rows[0].total:,}" if rows else "–",
        "triplets now": f"{rows[-1].total:,}" if rows else "–",
        "success at the start": f"{success[0]:.1f} %" if success else "–",
        "success now": f"{success[-1]:.1f} %" if success else "–",
    }
    pairs = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in totals.items())
    return f'<dl class="totals">{pairs}</dl><p class="state">{escape_text(table.describe_reviewers(loop))}</p>'


def _render_rounds(loop: Loop) -> str:
    rows = table.build_rows(loop)
    if not rows:
        return render_note("No step is done yet.")
    chart = render_chart(
        table.draw_chart(loop),
        "Success, training set and yield by round, beside RORem's; the table below has this loop's values",
    )
    further = table.format_cells(table.FURTHER, rows)
    more = f"<h3>Further measures</h3>{render_numbers(further)}" if len(further[0]) > 1 else ""
    missing = "; ".join(f"{name}: {escape_text(reason)}" for name, reason in table.list_missing_measures(rows))
    return (
        f"{chart}{render_numbers(table.format_cells(table.TABLE_1, rows))}"
        '<p class="note">Values are given with their standard errors. RORem’s rounds are Table 1 of its paper: success '
        f"by people on 500 test pictures.</p>{more}"
        + (f'<p class="note">Not measured: {missing}.</p>' if missing else "")
    )


def _render_discriminators(loop: Loop, rounds: Mapping[int, Sequence[Candidate]]) -> str:
    parts = []
    for number in range(len(rounds) + 1):
        result = loop.read_result(DiscriminatorResult, number)
        if result is None:
            continue
        title = f"<h3>After round {number}" if number else "<h3>Before any vote"
        if not result.folder:
            note = render_note(f"No discriminator: {escape_text(result.why)}.")
            parts.append(f"<article>{title}</h3>{note}</article>")
            continue
        votes = f"learned from {format_count(result.learned or 0, 'vote')}, calibrated on {result.calibrated or 0:,}"
        name = result.folder.rpartition("/")[2]
        charts = _render_evaluation(loop, name, rounds) or render_note(_explain_no_charts(loop, name, rounds))
        check = _describe_check(loop, result)
        parts.append(f"<article>{title} <small>{votes}</small></h3>{render_note(escape_text(check)) if check else ''}")
        parts.append(f"{charts}{_render_thresholds(result.thresholds or {})}</article>")
    return "".join(parts) or render_note("No discriminator has been trained yet.")


def _describe_check(loop: Loop, result: DiscriminatorResult) -> str:
    """Describe the failed check of a discriminator, and what follows from it; nothing where it passed."""
    if (faults := find_overruled_refusal(loop, result)) is not None:
        return f"It did not pass its check, and decides all the same, as the recipe has `unchecked: true`: {faults}."
    return f"It failed its check and may keep nothing by itself: {result.refusal}." if result.refusal else ""


def _render_thresholds(thresholds: Mapping[str, ThresholdResult]) -> str:
    lines = [("remover", "votes above", "of them yes", "at least", "threshold", "")]
    for name, entry in thresholds.items():
        if entry.threshold is None:
            lines.append((name, "–", "–", "–", "none", entry.why))
        else:
            count, yes, low = f"{entry.count:,}", f"{entry.yes:,}", f"{100 * entry.low:.1f} %"
            lines.append((name, count, yes, low, f"{entry.threshold:.3f}", entry.why))
    return render_numbers(lines)


def _render_evaluation(loop: Loop, name: str, rounds: Mapping[int, Sequence[Candidate]]) -> str:
    """Render a discriminator's charts, of the evaluation in its folder or else of the automatic rounds it scored."""
    report = loop.read_json(f"judges/{name}/{EVALUATION}", None)
    if report is not None:
        outcome = report.get("promise") or {}
        threshold = (outcome["kept"] / outcome["of"], outcome["precision"]) if outcome.get("kept") else None
        curve = [(point["kept"], point["precision"]) for point in report["curve"]]
        return _render_charts(report, curve, threshold, f"{format_count(report['count'], 'held-out vote')}")
    scored = _list_scored_rounds(loop, name, rounds)
    candidates = [c for n in scored for c in rounds[n] if c.score is not None and c.true_yes is not None]
    scores = np.array([candidate.score for candidate in candidates], float)
    truth = np.array([candidate.true_yes for candidate in candidates], float)
    if not len(candidates) or len(set(truth)) < 2:
        return ""
    report = evaluation.evaluate(scores, truth, [candidate.remover for candidate in candidates])
    picked = calibration.pick_best_of_scenes(scores, [candidate.scene for candidate in candidates])
    kept = [bool(candidates[k].true_yes) for k in picked if candidates[k].kept]
    threshold = (len(kept) / len(picked), sum(kept) / len(kept)) if kept else None
    curve = [(point.kept, point.precision) for point in evaluation.compute_curve(scores[picked], truth[picked])]
    where = " and ".join(map(str, scored))
    basis = f"{format_count(len(candidates), 'candidate')} of round {where}, by the ground-truth reviewer"
    return _render_charts(report, curve, threshold, basis)


def _list_scored_rounds(loop: Loop, name: str, rounds: Mapping[int, Sequence[Candidate]]) -> list[int]:
    """List the automatic rounds that a discriminator has scored; in the others people have decided."""
    automatic = [number for number in rounds if loop.recipe.rounds[number - 1].kind == "auto"]
    results = {number: loop.read_result(ScoreResult, number) for number in automatic}
    return [number for number, result in results.items() if result and result.discriminator == name]


def _explain_no_charts(loop: Loop, name: str, rounds: Mapping[int, Sequence[Candidate]]) -> str:
    """Explain why a discriminator's scores have no charts."""
    scored = _list_scored_rounds(loop, name, rounds)
    candidates = [candidate for number in scored for candidate in rounds[number] if candidate.score is not None]
    if not candidates:
        return "It has not scored any candidates yet that it did not learn from."
    text = f"It has scored {format_count(len(candidates), 'candidate')} of round {' and '.join(map(str, scored))}"
    truth = [candidate.true_yes for candidate in candidates if candidate.true_yes is not None]
    if not truth:
        return f"{text}; their truth is not available."
    verb = "accepts" if truth[0] else "rejects"
    return f"{text}; the ground-truth reviewer {verb} all {len(truth)} with a truth, and charts need both verdicts."


def _render_charts(report: Mapping[str, Any], curve: Sequence[Point], threshold: Point | None, basis: str) -> str:
    """Render a discriminator's charts.

    Args:
        basis: what they were measured on.
    """
    reliability = [(entry["score"], entry["yes"]) for entry in report["reliability"]]
    chart = loop_charts.draw_discriminator(reliability, curve, threshold, basis)
    figures = f"AUC {report['auc']:.3f}, calibration error {report['ece']:.3f}, on {basis}"
    alt = f"Reliability, and precision and yield: {figures}"
    return f'{render_chart(chart, alt)}<p class="note">{escape_text(figures)}.</p>'


def _build_galleries(
    loop: Loop, rounds: Mapping[int, Sequence[Candidate]], rows: int, files: PictureFiles
) -> list[Gallery]:
    """Build a table of the candidates of each round, the last round first."""
    chosen = {
        number: [*_choose_evenly([c for c in candidates if c.kept], -(-rows // 2)),
                 *_choose_evenly([c for c in candidates if not c.kept], rows // 2)]
        for number, candidates in rounds.items()
    }  # fmt: skip
    side = thumbnails.choose_side(3 * sum(map(len, chosen.values())), INSIDE_BYTES, 480, 320)
    galleries = []
    for number, candidates in sorted(rounds.items(), reverse=True):
        inpainted = loop.read_result(InpaintResult, number)
        if inpainted is None:
            continue
        kind = "human" if loop.recipe.rounds[number - 1].kind == "human" else "automatic"
        decided = loop.read_result(AddResult, number) is not None
        joined = sum(candidate.kept for candidate in candidates)
        unreadable = inpainted.candidates - len(candidates)
        state = f"{joined:,} of {format_count(len(candidates), 'candidate')} joined" if decided else "not decided yet"
        state += f", {unreadable:,} cannot be read" if unreadable > 0 else ""
        gallery = Gallery(
            f"round-{number}",
            f"Round {number}, {kind}",
            len(candidates),
            _list_columns(candidates, loop.recipe.reviewers, decided),
            note=f"{state[0].upper()}{state[1:]}.",
        )
        by_id = {candidate.id: row for row, candidate in enumerate(candidates)}
        run, places = loop.open_round(number), [candidate.place for candidate in chosen[number]]
        raws = thumbnails.read_examples(run, places, LIGHT, PICTURES)
        for candidate, raw in zip(chosen[number], raws, strict=True):
            example = thumbnails.build_example(raw, ROLES, side)
            gallery.pictures[by_id[candidate.id]] = describe_example(example, files.add)
        galleries.append(gallery)
    return galleries


def _list_columns(candidates: Sequence[Candidate], reviewers: str, decided: bool) -> dict[str, list[Any]]:
    """List what is known of candidates, as columns of a table."""
    words = {True: "true yes", False: "true no", None: None}
    joined = {True: "joined the training set", False: "did not join"}
    return {
        "id": [candidate.id for candidate in candidates],
        "remover": [candidate.remover or None for candidate in candidates],
        "joined": [joined[candidate.kept] if decided else None for candidate in candidates],
        "score": convert_values(Kind.FLOAT, [candidate.score for candidate in candidates]),
        "verdict": [f"{reviewers}: {c.verdict}" if c.verdict else None for c in candidates],
        "true verdict": [words[candidate.true_yes] for candidate in candidates],
        "scene": [candidate.scene for candidate in candidates],
    }


def _choose_evenly(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Choose some candidates evenly spread over all, by score where they have one."""
    ranked = sorted(candidates, key=lambda candidate: -(candidate.score or 0.0))
    return [ranked[index] for index in thumbnails.space_evenly(len(ranked), count)]
