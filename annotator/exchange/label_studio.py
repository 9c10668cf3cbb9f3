"""Label Studio's JSON, out and in: a task for each item, an annotation for each vote.

Only choices and remarks are read back. The addresses of a task's pictures are never fetched: its `data` has the id of
the item.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from rasura.annotator.exchange.vote_rows import ITEM_COLUMNS, BadVotes
from rasura.annotator.server.images import NoPicture, PictureReader, Role
from rasura.annotator.store.database import items
from rasura.annotator.store.enums import REASON_TEXT, Action, ItemKind, Verdict
from rasura.annotator.store.reviewers import list_names
from rasura.annotator.store.vote_log import LogEntry, fold_entries, read_entries
from rasura.manifests.json_lines import explain_json_error

FOLDER = "label-studio"
PICTURES: Mapping[str, Role] = {"before": "source", "mask": "mask", "after": "result"}
"""Pictures of a task by their key. Label Studio puts the whole task in place of `$source`."""
CONFIG = """<View>
  <Header value="Is the object gone without a trace?"/>
  <View style="display: flex">
    <View style="width: 40%"><Image name="source" value="$before"/></View>
    <View style="width: 40%"><Image name="result" value="$after"/></View>
    <View style="width: 20%"><Image name="mask" value="$mask"/></View>
  </View>
  <Choices name="verdict" toName="result" choice="single" required="true">
    <Choice value="yes" hotkey="y"/><Choice value="no" hotkey="n"/><Choice value="unsure" hotkey="u"/>
  </Choices>
  <Choices name="reason" toName="result" choice="single" visibleWhen="choice-selected" whenTagName="verdict" whenChoiceValue="no">
{reasons}
  </Choices>
  <TextArea name="remark" toName="result"/>
</View>
"""  # noqa: E501


def _make_choice(name: str, value: str) -> dict[str, Any]:
    return {"from_name": name, "to_name": "result", "type": "choices", "value": {"choices": [value]}}


def _make_annotation(entry: LogEntry, reviewer: str) -> dict[str, Any]:
    result = [_make_choice("verdict", entry.verdict)] if entry.verdict else []
    if entry.reason:
        result.append(_make_choice("reason", entry.reason))
    if entry.remark:
        text = {"text": [entry.remark]}
        result.append({"from_name": "remark", "to_name": "result", "type": "textarea", "value": text})
    return {
        "completed_by": {"email": reviewer},
        "result": result,
        "was_cancelled": entry.verdict is None,
        "ground_truth": False,
        "lead_time": entry.seconds,
        "unique_id": entry.nonce,
        "created_at": datetime.fromtimestamp(entry.time, UTC).isoformat(),
    }


def build_tasks(connection: Connection) -> list[dict[str, Any]]:
    """Build a task for each candidate, with the votes that count and the paths of its pictures in Label Studio."""
    names, entries = list_names(connection), defaultdict[str, list[LogEntry]](list)
    for (item, _), entry in fold_entries(read_entries(connection)).items():
        entries[item].append(entry)
    tasks = []
    conditions = (items.c.kind == ItemKind.CANDIDATE, ~items.c.withdrawn)
    columns = [name for name in (*ITEM_COLUMNS, "label", "remover", "score") if name != "expected"]
    for row in connection.execute(select(items).where(*conditions).order_by(items.c.row_id)):
        pictures = {key: f"/data/local-files/?d={FOLDER}/{row.id}-{role}" for key, role in PICTURES.items()}
        values = {name: getattr(row, name) for name in columns}
        task: dict[str, Any] = {"data": {"item": row.id, **values, **pictures}}
        task["annotations"] = [_make_annotation(entry, names[entry.reviewer]) for entry in entries[row.id]]
        if row.score is not None:
            verdict = [_make_choice("verdict", "yes" if row.score > 0.5 else "no")]
            task["predictions"] = [{"score": row.score, "model_version": row.remover or "", "result": verdict}]
        tasks.append(task)
    return tasks


def export_label_studio(connection: Connection, out: Path, pictures: PictureReader | None) -> int:
    """Write `label-studio.json`, `label-studio.xml` (the labelling config) and, where `pictures` are given, those.

    Args:
        connection: to the database.
        out: the folder to write into.
        pictures: of the run.

    Returns:
        The number of tasks.
    """
    tasks = build_tasks(connection)
    if pictures:
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        rows = {row.id: row for row in connection.execute(select(items))}
        for task in tasks:
            for key, role in PICTURES.items():
                try:
                    data, media_type = pictures.get(rows[task["data"]["item"]], role)
                except NoPicture:
                    continue  # the task still names its row
                name = f"{task['data']['item']}-{role}.{media_type.rpartition('/')[2]}"
                (out / FOLDER / name).write_bytes(data)
                task["data"][key] = f"/data/local-files/?d={FOLDER}/{name}"
    out.mkdir(parents=True, exist_ok=True)
    (out / "label-studio.json").write_text(json.dumps(tasks, ensure_ascii=False, indent=1), encoding="utf-8")
    reasons = "\n".join(f'    <Choice value="{reason}" alias="{text}"/>' for reason, text in REASON_TEXT.items())
    (out / "label-studio.xml").write_text(CONFIG.format(reasons=reasons), encoding="utf-8")
    return len(tasks)


def read_label_studio(file: Path) -> list[dict[str, Any]]:
    """Read the annotations of Label Studio's JSON (a list of tasks) as rows of votes, unchecked.

    Raises:
        BadVotes: the file is no such list, or a task of it is wrong.
    """
    try:
        tasks = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = explain_json_error(error)
        raise BadVotes(f"{file}: not JSON; votes are in .jsonl, .parquet or Label Studio's .json: {reason}") from None
    if not isinstance(tasks, list):
        raise BadVotes(f"{file}: expected a list of tasks, as Label Studio exports with format JSON")
    return [row for number, task in enumerate(tasks, 1) for row in _parse_task(task, f"{file}, task {number}")]


def _parse_task(task: Any, where: str) -> Iterator[dict[str, Any]]:
    data = task.get("data") if isinstance(task, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(data.get("item"), str):
        raise BadVotes(f"{where}: its data names no item; only tasks that `rasura votes export` wrote can come back")
    annotations = task.get("annotations") or []
    if not isinstance(annotations, list) or not all(isinstance(annotation, Mapping) for annotation in annotations):
        raise BadVotes(f"{where}: its annotations are no list")
    for annotation in annotations:
        item = {name: data.get(name) for name in ITEM_COLUMNS}
        yield {"item": data["item"], **item, **_parse_annotation(annotation, f"{where} ({data['item']})")}


def _parse_annotation(annotation: Mapping[str, Any], where: str) -> dict[str, Any]:
    results = [result for result in annotation.get("result") or [] if isinstance(result, Mapping)]
    values = {result.get("from_name"): result.get("value") or {} for result in results}
    verdict, reason = (_parse_choice(values.get(name)) for name in ("verdict", "reason"))
    remark = values.get("remark", {}).get("text")
    cancelled = bool(annotation.get("was_cancelled"))
    if verdict is None and not cancelled:
        raise BadVotes(f"{where}: an annotation without a verdict")
    author = annotation.get("completed_by")
    name = author.get("email") if isinstance(author, Mapping) else None if author is None else f"Label Studio {author}"
    try:
        time = datetime.fromisoformat(str(annotation.get("created_at"))).timestamp()
    except ValueError:
        raise BadVotes(f"{where}: created_at is '{annotation.get('created_at')}', no time") from None
    return {
        "reviewer": name or "Label Studio",
        "time": time,
        "nonce": _make_nonce(annotation, where, name),
        "action": str(Action.SKIP if cancelled else Action.VOTE),
        "verdict": None if cancelled else verdict,
        "reason": reason if verdict == Verdict.NO and not cancelled else None,
        "remark": " ".join(map(str, remark)) if isinstance(remark, list) else remark,
        "seconds": annotation.get("lead_time"),
        "version": "label-studio",
    }


def _make_nonce(annotation: Mapping[str, Any], where: str, name: str | None) -> str:
    """Return the annotation's own id, or one from what it says, so that it is imported once."""
    if unique_id := annotation.get("unique_id"):
        return str(unique_id)[:64]
    identity = [where.rpartition(" ")[2], annotation.get("id"), annotation.get("created_at"), name]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def _parse_choice(value: Any) -> str | None:
    choices = value.get("choices") if isinstance(value, Mapping) else None
    if not isinstance(choices, list) or not choices:
        return None
    reasons = {text: str(reason) for reason, text in REASON_TEXT.items()}
    choice = str(choices[0])
    return reasons.get(choice, choice.lower())
