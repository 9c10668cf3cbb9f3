"""What a picture's own metadata say of the camera: how far it looks down, and its height above the ground.

Cameras with a level sensor write the EXIF tag CameraElevationAngle; drones write the pitch of their gimbal and their
height above the place where they started into XMP.
"""

import re

from PIL import ExifTags

from rasura.manifests.images import open_image, read_field_of_view
from rasura.manifests.schemas import Kind, Schema

CAMERA_COLUMNS: Schema = {
    "camera_fov": Kind.FLOAT,  # degrees, horizontal; null where the file does not have it
    "camera_pitch": Kind.FLOAT,  # degrees by which the camera looks down; the same
    "camera_height": Kind.FLOAT,  # metres above the ground; the same
}
MIN_DRONE_HEIGHT = 5.0  # metres: nearer to the ground a barometer does not tell how high a drone is
XMP_BYTES = 262_144  # of the file's start, in which XMP is looked for
_PITCH = re.compile(rb"GimbalPitchDegree(?:=\"|>)\s*([+-]?\d+(?:\.\d+)?)")
_HEIGHT = re.compile(rb"RelativeAltitude(?:=\"|>)\s*([+-]?\d+(?:\.\d+)?)")


def read_camera_pose(data: bytes) -> dict[str, float | None]:
    """Read `camera_pitch` (degrees down) and `camera_height` (metres) of a picture file; None where it has none.

    Source:
        Exif 2.32 (CIPA DC-008), CameraElevationAngle: degrees upwards, -180 to 180.
    """
    pitch: float | None = None
    try:
        tags = open_image(data).getexif().get_ifd(ExifTags.IFD.Exif)
        if (elevation := tags.get(ExifTags.Base.CameraElevationAngle)) is not None:
            pitch = -float(elevation)
    except (OSError, SyntaxError, ValueError, TypeError, ZeroDivisionError):
        pitch = None  # broken metadata are no reason to lose the picture
    start = data[:XMP_BYTES]
    gimbal, altitude = _PITCH.search(start), _HEIGHT.search(start)
    if pitch is None and gimbal is not None:
        pitch = -float(gimbal.group(1))
    height = None if altitude is None else float(altitude.group(1))
    return {
        "camera_pitch": pitch if pitch is not None and -60 <= pitch < 90 else None,
        "camera_height": height if height is not None and MIN_DRONE_HEIGHT <= height <= 1000 else None,
    }


def read_camera(data: bytes) -> dict[str, float | None]:
    """Read the columns of `CAMERA_COLUMNS` from a picture file."""
    return {"camera_fov": read_field_of_view(data), **read_camera_pose(data)}
