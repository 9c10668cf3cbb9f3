"""Stage `repair`: makes a triplet of an inspected row, mended where that can be done, and rejects the others.

What is mended: the target is laid on the source's pixel grid and brought to its exposure, and outside of M_fg it
becomes the source, bit by bit, as `capture` does with every pair. A row without faults whose target is exact stays
as it is.
"""

from pydantic import Field

from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.stages.capture import Capture, CaptureParams
from rasura.stages.curation.faults import change_limits, find_faults
from rasura.stages.curation.inspection import PAIR_PICTURES
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Stage

UNTOUCHED = "untouched"


class RepairParams(Params):
    limits: dict[str, float] = Field(default_factory=dict, description="Other limits than the default, by column.")
    doubts: bool = Field(True, description="Keep rows that have doubts and no fault.")


class Repair(Stage):
    """Mend an inspected row, or reject it by what cannot be mended.

    Examples:
        - inspect: {pictures: true}
        - repair: {}
    """

    name = "repair"
    version = "2"
    needs = {**PAIR_PICTURES, "inspect_exact": Kind.BOOL, "inspect_verdict": Kind.STRING}
    gives = {
        "kind": Kind.STRING,
        "source": Kind.RGB,
        "target": Kind.RGB,
        "mask": Kind.MASK,
        "foreground_mask": Kind.MASK,
        "repair_done": Kind.STRING,  # untouched, or what was mended, with commas
    }
    drops = frozenset({*PAIR_PICTURES, "inspect_strip"}) - {"foreground_mask"}
    Params = RepairParams
    params: RepairParams

    def __init__(self, params: RepairParams, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.limits = change_limits(params.limits)
        self.capture = Capture(CaptureParams())

    def process_one(self, record: Record) -> Outcome:
        if record["inspect_verdict"]:
            reason, _, detail = record["inspect_verdict"].partition(": ")
            return Rejected(reason, detail)
        faults = find_faults(record, self.limits)
        for fault in faults:
            if fault.limit.repair is None and (fault.limit.level == "fault" or not self.params.doubts):
                return Rejected(fault.limit.reason, fault.describe_value())
        repairs = {fault.limit.repair for fault in faults if fault.limit.repair}
        triplet: Record = {"kind": record["given_kind"] or "captured", "repair_done": UNTOUCHED}
        if repairs or not record["inspect_exact"]:
            outcome = self.capture.process_one(record)
            if isinstance(outcome, Rejected):
                return outcome
            made = outcome.records[0]
            triplet["repair_done"] = ", ".join(dict.fromkeys([*sorted(repairs | _list_matched(record)), "outside"]))
        else:
            made = {
                "source": record["input"],
                "target": record["gt"],
                "mask": record["object_mask"],
                "foreground_mask": record["foreground_mask"],
            }
        triplet |= {name: made[name] for name in ("source", "target", "mask", "foreground_mask")}
        kept = {name: value for name, value in record.items() if name in PROVENANCE or name not in self.drops}
        return Kept([kept | triplet])


def _list_matched(record: Record) -> set[str]:
    """List what the inspection has already matched in the target that it gives, within the limits, too."""
    moved = any(record.get(name) for name in ("inspect_shift", "inspect_zoom", "inspect_turn"))
    toned = any(gain != 1 for gain in record.get("pair_gain") or ()) or bool(record.get("pair_tone"))
    return {name for name, applies in (("registration", moved), ("exposure", toned)) if applies}
