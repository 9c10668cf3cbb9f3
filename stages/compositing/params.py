"""Parameters of the stage `composite`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from rasura.stages import stage

Sizes = dict[str, tuple[float, float, float]]


class CompositeParams(stage.Params):
    """Parameters of the stage `composite`."""

    former_names: ClassVar[Mapping[str, str]] = {
        "skip_unplaceable": "leave_out",
        "check_scene_type": "places",
        "camera_height": "eye",
        "max_shadow_rotation": "turn_shadows",
    }

    placement: Literal["ground", "gaussian"] = Field(
        "ground", description="Objects stand on the ground plane; or, as a baseline, are placed as by Syn4Removal."
    )
    tries: int = Field(300, ge=1, description="Positions that are drawn for each foreground.")
    skip_unplaceable: bool = Field(True, description="An object that fits nowhere is left out if others do.")
    overlap: float = Field(0.5, ge=0, le=1, description="Share of another object's box that an object may cover.")
    on_ground: float = Field(
        0.8, ge=0, le=1, description="Share of the area under and in front of an object that must be ground."
    )
    min_visible: float = Field(0.4, gt=0, le=1, description="Share of each object that must be visible.")
    min_height: float = Field(0.07, gt=0, le=1, description="Smallest object, share of the background's height.")
    max_height: float = Field(0.75, gt=0, description="Largest object, share of the background's height.")
    max_upscale: float = Field(1.3, gt=0, description="Enlargement above which an object would be blurred.")
    max_outside: float = Field(0.0, ge=0, lt=1, description="Share of an object's box that may be beyond the frame.")
    max_pitch: float = Field(
        15.0, gt=0, le=90, description="Degrees between how steeply an object is looked down on here and in its photo."
    )
    max_view_error: float | None = Field(
        8.0,
        gt=0,
        description="Degrees by which the view of an object or of a ground plane may be off; null: defaults too.",
    )
    max_size_error: float | None = Field(
        0.3, gt=0, description="Relative error that a pasted object's size may have; null: defaults too."
    )
    check_scene_type: bool = Field(
        True, description="Objects are placed only where their class can stand: no car in a kitchen."
    )
    check_thin_objects: bool = Field(
        True, description="No object is placed behind a pole or post, which would have to hide it."
    )
    allow_cut: bool = Field(False, description="Place objects that their photo's frame cut, at the same side again.")
    camera_height: float = Field(
        1.6, gt=0, description="Height in metres of a camera for which nothing better is available."
    )
    size_trust: float = Field(
        1.6, ge=1, description="Factor off its class's size above which a photo's own metres are not believed."
    )
    sizes: Sizes = Field({}, description="Label to height, width, length in metres, before the built-in table.")
    scale_jitter: float = Field(
        0.05, ge=0, description="Spread of the size, log units, where one of the ground planes has no metres."
    )
    areas: dict[str, tuple[float, float]] = Field(
        {}, description="gaussian: label to mean and deviation of the object's share of a picture; else its own share."
    )
    area_spread: float = Field(0.3, ge=0, description="gaussian: relative deviation of a label that `areas` lacks.")
    rotation: float = Field(
        0.0, ge=0, le=180, description="gaussian: degrees by which objects are rotated at most (Syn4Removal: 45)."
    )
    blend: Literal["alpha", "trimap"] = Field(
        "alpha",
        description="Rim of an object: its own alpha; or, as by Syn4Removal, matted where it is pasted, which suits "
        "objects that were cut out with a binary mask.",
    )
    flip: Literal["never", "compatible", "random"] = Field(
        "compatible",
        description="Objects are mirrored, where the draw does not say it: never; where shadows then agree; by chance.",
    )
    max_shadow_rotation: float = Field(
        20.0, ge=0, le=180, description="Degrees by which a shadow may be rotated so that all fall one way."
    )
    max_shadow: float = Field(
        45.0, ge=0, le=180, description="Degrees between two shadows above which an object is left out (or the draw)."
    )
    colour: float = Field(0.4, ge=0, le=1, description="How far light and white go towards the background's, 0: not.")
    max_exposure: float = Field(0.2, ge=0, le=1, description="Most that an object is made brighter or darker.")
    max_balance: float = Field(0.05, ge=0, le=1, description="Most that a channel is changed by white balance.")
    max_grain: float = Field(3.0, ge=0, description="Most noise that is added or taken, levels; 0: left as it is.")
    noise: tuple[float, float] = Field((0, 0), description="Sensor noise of the finished pictures, levels, from, to.")
    jpeg: tuple[int, int] | None = Field(None, description="Quality of a JPEG they go through, from, to; null: none.")

    @field_validator("noise", "jpeg")
    @classmethod
    def _check_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] <= value[1] <= 100:
            raise ValueError(f"from and to have to be ordered and within 0 to 100, not {list(value)}")
        return value

    @model_validator(mode="after")
    def _check_rotation(self) -> "CompositeParams":
        if self.rotation and self.placement != "gaussian":
            raise ValueError("rotation needs `placement: gaussian`: what stands on a ground plane is upright")
        return self
