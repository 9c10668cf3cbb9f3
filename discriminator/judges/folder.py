"""The folder of a judge of any backend: created, listed and opened.

judge.json    `backend` and its settings; without a backend it is a trained network (`rasura.discriminator.model`)
prompt.txt    the question of a VLM
answers/      its answers so far
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rasura.discriminator import model
from rasura.discriminator.calibration import FILE
from rasura.discriminator.judges.base import Array, Judge
from rasura.discriminator.judges.ensemble import Ensemble, fit_weights
from rasura.discriminator.judges.metrics import METRICS, MetricJudge
from rasura.discriminator.judges.vlm import VlmJudge, VlmSettings, read_prompt
from rasura.discriminator.network import WrongDiscriminator
from rasura.manifests.json_lines import parse_json

RECORD, PROMPT, ANSWERS = "judge.json", "prompt.txt", "answers"

Backend = Literal["network", "vlm", "remove", "rc_s", "ensemble"]


def read_record(folder: Path) -> dict[str, Any]:
    """Read a judge's settings.

    Raises:
        WrongDiscriminator: it is no judge's folder, or one of another format.
    """
    path = folder / RECORD
    if not path.is_file():
        raise WrongDiscriminator(f"no discriminator in {folder}: it has no {RECORD}")
    record: dict[str, Any] = parse_json(path.read_text(), path)
    if record.get("format") != model.FORMAT:
        raise WrongDiscriminator(f"{folder} has format {record.get('format')}, this program reads {model.FORMAT}")
    return record


def read_backend(folder: Path) -> str:
    """Return the backend of a judge; see `read_record`."""
    return str(read_record(folder).get("backend", "network"))


def needs_check(folder: Path) -> bool:
    """Return True for a judge that may not keep anything before it was checked: all but a trained network.

    A folder that has thresholds alone is that of a network.
    """
    return (folder / RECORD).is_file() and read_backend(folder) != "network"


def create_vlm(folder: Path, url: str, model_name: str, prompt: str = "removal-1", **settings: Any) -> None:
    """Create the folder of a VLM judge. The prompt is copied into it.

    Args:
        prompt: name of one of this package's prompts, or a text file.
        settings: more of `VlmSettings`.

    Raises:
        ValueError: there is no such prompt, or the url is none.
    """
    made = VlmSettings(url, model_name, read_prompt(prompt), **settings)
    VlmJudge(made, folder)  # refuses what cannot be used
    values = {name: value for name, value in asdict(made).items() if name != "prompt"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROMPT).write_text(made.prompt)
    _write_record(folder, "vlm", values)


def create_metric(folder: Path, metric: str, weights: Path) -> None:
    """Create the folder of a metric as a judge: `remove` or `rc_s`, with an encoder's weights.

    Raises:
        BadWeights: the weights cannot be opened.
        ValueError: there is no such metric.
    """
    if metric not in METRICS:
        raise ValueError(f"there is no metric '{metric}': choose from {', '.join(METRICS)}")
    MetricJudge(metric, weights)
    _write_record(folder, metric, {"weights": str(weights.absolute())})


def create_ensemble(
    folder: Path, members: Sequence[Path], logits: Array, votes: Array, weights: Array | None = None
) -> list[float]:
    """Create the folder of an ensemble, and fit its weights to votes that do not calibrate it later.

    Args:
        members: folders of its judges.
        logits: (n, k), by its k judges. votes, weights: (n,).

    Returns:
        The weight of each judge.
    """
    fitted, intercept = fit_weights(logits, votes, weights)
    values = {"members": [str(member.absolute()) for member in members], "weights": fitted, "intercept": intercept}
    _write_record(folder, "ensemble", values)
    return fitted


def _write_record(folder: Path, backend: str, values: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record = {"format": model.FORMAT, "backend": backend, **values}
    (folder / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def list_files(folder: Path, base: Path | None = None) -> dict[str, Path]:
    """Return the files that opening a judge reads, by name, for their hashes.

    Raises:
        WrongDiscriminator: it is no judge's folder, or it needs a base.
    """
    record = read_record(folder)
    backend = record.get("backend", "network")
    if backend == "network":
        return model.list_files(folder, base)
    files = {name: folder / name for name in (RECORD, PROMPT, FILE) if (folder / name).is_file()}
    if backend in METRICS:
        files["encoder"] = Path(record["weights"])
    for index, member in enumerate(record.get("members", [])):
        files |= {f"{index}/{name}": path for name, path in list_files(Path(member), base).items() if name != FILE}
    return files


def open_judge(
    folder: Path, base: Path | None = None, device: str = "auto", dtype: str = "auto", batch: int | None = None
) -> Judge:
    """Open a judge of any backend.

    Args:
        base: folder of SDXL-inpainting, for a network that was trained on it.
        device, dtype, batch: of a network.

    Raises:
        WrongDiscriminator: it is no judge's folder, or its backend is not known.
        BadWeights: the weights of a metric are missing.
    """
    record = read_record(folder)
    backend = record.get("backend", "network")
    values = {name: value for name, value in record.items() if name not in ("format", "backend")}
    if backend == "network":
        return model.load(folder, base, device, dtype, batch)
    if backend == "vlm":
        return VlmJudge(VlmSettings(prompt=(folder / PROMPT).read_text(), **values), folder / ANSWERS)
    if backend in METRICS:
        return MetricJudge(backend, Path(values["weights"]))
    if backend == "ensemble":
        members = [open_judge(Path(member), base, device, dtype, batch) for member in values["members"]]
        return Ensemble(members, values["weights"], values["intercept"])
    raise WrongDiscriminator(
        f"{folder}: there is no backend '{backend}'; this program has network, vlm, remove, rc_s, ensemble"
    )
