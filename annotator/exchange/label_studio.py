"""Label Studio's JSON, out and in: one task an item, one annotation a vote.

Coming in, only choices and remarks are read. Nothing that a task calls a picture is ever fetched: a task says in its
`data` which item it is about.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from rasura.annotator.exchange.votes_file import ITEM, BadVotes
from rasura.annotator.server.images import NoPicture, Pictures
from rasura.annotator.store.database import items
from rasura.annotator.store.enums import REASON_TEXT, Action, ItemKind, Verdict
from rasura.annotator.store.reviewers import names
from rasura.annotator.store.vote_log import entries, fold

FOLDER = "label-studio"
CONFIG = """<View>
  <Header value="Is the object gone without a trace?"/>
  <Image name="source" value="$source"/>
  <Image name="mask" value="$mask"/>
  <Image name="result" value="$result"/>
  <Choices name="verdict" toName="result" choice="single" required="true">
    <Choice value="yes" hotkey="y"/><Choice value="no" hotkey="n"/><Choice value="unsure" hotkey="u"/>
  </Choices>
  <Choices name="reason" toName="result" choice="single" visibleWhen="choice-selected" whenTagName="verdict" whenChoiceValue="no">
{reasons}
  </Choices>
  <TextArea name="remark" toName="result"/>
</View>
"""  # noqa: E501


def _choice(name: str, value: str) -> dict[str, Any]:
    return {"from_name": name, "to_name": "result", "type": "choices", "value": {"choices": [value]}}


def _annotation(entry: Any, reviewer: str) -> dict[str, Any]:
    result = [_choice("verdict", entry.verdict)] if entry.verdict else []
    if entry.reason:
        result.append(_choice("reason", entry.reason))
    if entry.remark:
        text = {"text": [entry.remark]}
        result.append({"from_name": "remark", "to_name": "result", "type": "textarea", "value": text})
    return {
        "completed_by": {"email": reviewer}, "result": result, "was_cancelled": entry.verdict is None,
        "ground_truth": False, "lead_time": entry.seconds, "unique_id": entry.nonce,
        "created_at": datetime.fromtimestamp(entry.time, UTC).isoformat(),
    }  # fmt: skip


def tasks(connection: Connection) -> list[dict[str, Any]]:
    """All candidates as tasks, with the votes that stand; pictures by the path under Label Studio's local files."""
    people, given = names(connection), defaultdict[str, list[Any]](list)
    for (item, _), entry in fold(entries(connection)).items():
        given[item].append(entry)
    found = []
    of = (items.c.kind == ItemKind.CANDIDATE, ~items.c.withdrawn)
    for row in connection.execute(select(items).where(*of).order_by(items.c.row_id)):
        pictures = {role: f"/data/local-files/?d={FOLDER}/{row.id}-{role}" for role in ("source", "mask", "result")}
        facts = {name: getattr(row, name) for name in (*ITEM, "label", "remover", "score") if name != "expected"}
        task: dict[str, Any] = {"data": {"item": row.id, **facts, **pictures}}
        task["annotations"] = [_annotation(entry, people[entry.reviewer]) for entry in given[row.id]]
        if row.score is not None:
            verdict = [_choice("verdict", "yes" if row.score > 0.5 else "no")]
            task["predictions"] = [{"score": row.score, "model_version": row.remover or "", "result": verdict}]
        found.append(task)
    return found


def export_label_studio(connection: Connection, out: Path, pictures: Pictures | None) -> int:
    """Writes `label-studio.json`, `label-studio.xml` (the labelling config) and, where given, the pictures.

    Returns:
        How many tasks.
    """
    told = tasks(connection)
    if pictures:
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        rows = {row.id: row for row in connection.execute(select(items))}
        for task in told:
            for role in ("source", "mask", "result"):
                try:
                    data, kind = pictures.get(rows[task["data"]["item"]], role, "native")
                except NoPicture:
                    continue  # the task is still there, and says which row it is
                name = f"{task['data']['item']}-{role}.{kind.rpartition('/')[2]}"
                (out / FOLDER / name).write_bytes(data)
                task["data"][role] = f"/data/local-files/?d={FOLDER}/{name}"
    out.mkdir(parents=True, exist_ok=True)
    (out / "label-studio.json").write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
    reasons = "\n".join(f'    <Choice value="{reason}" alias="{text}"/>' for reason, text in REASON_TEXT.items())
    (out / "label-studio.xml").write_text(CONFIG.format(reasons=reasons), encoding="utf-8")
    return len(told)


def read_label_studio(file: Path) -> list[dict[str, Any]]:
    """Annotations of Label Studio's JSON (a list of tasks) as entries of the log.

    Raises:
        BadVotes
    """
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadVotes(f"{file}: not JSON: {error}") from None
    if not isinstance(told, list):
        raise BadVotes(f"{file}: expected a list of tasks, as Label Studio exports with format JSON")
    return [entry for number, task in enumerate(told, 1) for entry in _of_task(task, f"{file}, task {number}")]


def _of_task(task: Any, where: str) -> Iterator[dict[str, Any]]:
    data = task.get("data") if isinstance(task, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(data.get("item"), str):
        raise BadVotes(f"{where}: its data names no item; only tasks that `rasura votes export` wrote can come back")
    annotations = task.get("annotations") or []
    if not isinstance(annotations, list) or not all(isinstance(one, Mapping) for one in annotations):
        raise BadVotes(f"{where}: its annotations are no list")
    for annotation in annotations:
        place = {name: data.get(name) for name in ITEM}
        yield {"item": data["item"], **place, **_entry(annotation, f"{where} ({data['item']})")}


def _entry(annotation: Mapping[str, Any], where: str) -> dict[str, Any]:
    by_name = {
        one.get("from_name"): one.get("value") or {}
        for one in annotation.get("result") or []
        if isinstance(one, Mapping)
    }
    verdict, reason = (_chosen(by_name.get(name)) for name in ("verdict", "reason"))
    remark = by_name.get("remark", {}).get("text")
    cancelled = bool(annotation.get("was_cancelled"))
    if verdict is None and not cancelled:
        raise BadVotes(f"{where}: an annotation without a verdict")
    who = annotation.get("completed_by")
    name = who.get("email") if isinstance(who, Mapping) else None if who is None else f"Label Studio {who}"
    unique = (
        annotation.get("unique_id")
        or hashlib.sha256(
            json.dumps([where.rpartition(" ")[2], annotation.get("id"), annotation.get("created_at"), name]).encode()
        ).hexdigest()[:32]
    )
    try:
        time = datetime.fromisoformat(str(annotation.get("created_at"))).timestamp()
    except ValueError:
        raise BadVotes(f"{where}: created_at is '{annotation.get('created_at')}', no time") from None
    return {
        "reviewer": name or "Label Studio", "time": time, "nonce": str(unique)[:64],
        "action": str(Action.SKIP if cancelled else Action.VOTE), "verdict": None if cancelled else verdict,
        "reason": reason if verdict == Verdict.NO and not cancelled else None,
        "remark": " ".join(map(str, remark)) if isinstance(remark, list) else remark,
        "seconds": annotation.get("lead_time"), "version": "label-studio",
    }  # fmt: skip


def _chosen(value: Any) -> str | None:
    choices = value.get("choices") if isinstance(value, Mapping) else None
    if not isinstance(choices, list) or not choices:
        return None
    texts = {text: str(reason) for reason, text in REASON_TEXT.items()}
    word = str(choices[0])
    return texts.get(word, word.lower())
