"""Stage `shadow`: the direction of the light, estimated from the shadow that the objects cast on the ground plane."""

from pydantic import Field

from rasura.manifests.schemas import Kind
from rasura.stages.shadow_fit.light import cluster_azimuth, estimate_light
from rasura.stages.stage import Kept, Outcome, Params, Record, Stage


class ShadowParams(Params):
    confident: float = Field(0.4, ge=0, le=1, description="Confidence below which the direction counts as unknown.")


class Shadow(Stage):
    """Estimate a pair's light direction from the shadow that its objects cast."""

    name = "shadow"
    version = "3"
    needs = {"input": Kind.RGB, "gt": Kind.RGB, "object_mask": Kind.MASK, "foreground_mask": Kind.MASK}
    gives = {
        "shadow_azimuth": Kind.FLOAT,
        "shadow_elevation": Kind.FLOAT,
        "shadow_confidence": Kind.FLOAT,
        "shadow_cluster": Kind.INT,
        "shadow_softness": Kind.FLOAT,
    }
    Params = ShadowParams
    params: ShadowParams

    def process_one(self, record: Record) -> Outcome:
        light = estimate_light(
            record["input"],
            record["gt"],
            record["object_mask"],
            record["foreground_mask"],
            record.get("ground_plane"),
            record.get("ground_focal"),
        )
        sun = light.sun if light.confidence >= self.params.confident else None
        azimuth = sun.azimuth if sun else None
        measurements = {
            "shadow_azimuth": azimuth,
            "shadow_elevation": sun.elevation if sun else None,
            "shadow_confidence": light.confidence,
            "shadow_cluster": cluster_azimuth(azimuth),
            "shadow_softness": light.softness,
        }
        return Kept([record | measurements])
