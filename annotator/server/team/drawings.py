"""The API of drawings: floors and horizons on the photographs of a run, as its stage `ground` reads them."""

import io
import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Response
from fastapi import Path as PathParameter
from PIL import Image
from pydantic import Field

from rasura.annotator.server import schemas
from rasura.annotator.server.admin import Count, Start
from rasura.annotator.server.decoding import compute_view_scale, decode_scaled
from rasura.annotator.server.images import NoPicture
from rasura.annotator.server.review import CurrentReview, Review, SignedIn
from rasura.annotator.server.routes import PROBLEMS
from rasura.annotator.server.team.management import require_expert
from rasura.annotator.store.team import drawings
from rasura.annotator.store.team.photos import Photo
from rasura.manifests.images import open_image

PhotoId = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9_.:-]{1,200}$", description="id of the photograph's row")]

router = APIRouter(prefix="/api/drawings", responses=PROBLEMS)


class DrawingRequest(schemas.RequestBody):
    based_on: int = Field(ge=0, description="number of the version that was changed; 0 where there was none")
    value: dict[str, Any] | None = Field(description="a drawing as stage `ground` reads it; null: none")


def _find(review: Review, photo: str) -> Photo:
    if (found := review.photos.get().get(photo)) is None:
        raise HTTPException(404, "there is no such photograph")
    return found


def _read(review: Review, photo: Photo) -> bytes:
    try:
        return review.pictures.read_picture(photo.place, "source", keep=False)
    except (OSError, IndexError) as error:
        raise NoPicture(f"the photograph of row {photo.id} cannot be read: {error}") from error


@router.get("")
def list_drawings(review: CurrentReview, reviewer: SignedIn, start: Start = 0, count: Count = 12) -> dict[str, Any]:
    """Return the photographs on which a floor can be drawn, with the numbers of their versions: 0 where none is."""
    require_expert(review, reviewer)
    photos = list(review.photos.get().values()) if review.check_drawing else []
    with review.database.read() as connection:
        drawn = drawings.read_drawings(connection)
    described = [
        {"id": photo.id, "name": photo.origin.rpartition("/")[2], "version": drawn.get(photo.origin, (0, None))[0]}
        | {"is_drawn": drawn.get(photo.origin, (0, None))[1] is not None}
        for photo in photos[start : start + count]
    ]
    return {"total": len(photos), "items": described}


@router.get("/{photo}")
def get_drawing(photo: PhotoId, review: CurrentReview, reviewer: SignedIn) -> dict[str, Any]:
    """Return the newest version of a photograph's drawing, and the size of the photograph."""
    require_expert(review, reviewer)
    found = _find(review, photo)
    width, height = open_image(_read(review, found)).size
    with review.database.read() as connection:
        version, value = drawings.read_drawings(connection).get(found.origin, (0, None))
    return {"version": version, "value": value, "width": width, "height": height}


@router.get("/{photo}/picture", response_class=Response)
def get_photo(photo: PhotoId, review: CurrentReview, reviewer: SignedIn) -> Response:
    """Return a photograph as it fits a screen."""
    require_expert(review, reviewer)
    data = _read(review, _find(review, photo))
    pixels = decode_scaled(data, compute_view_scale(*open_image(data).size))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=90, method=2)
    return Response(out.getvalue(), media_type="image/webp")


@router.post("/{photo}")
def save_drawing(photo: PhotoId, body: DrawingRequest, review: CurrentReview, reviewer: SignedIn) -> dict[str, int]:
    """Save a drawing as the next version; one that stage `ground` would not take is refused with its reason."""
    require_expert(review, reviewer)
    found = _find(review, photo)
    if review.check_drawing is None:
        raise HTTPException(409, "this server takes no drawings")
    if body.value is not None:
        try:
            review.check_drawing(json.dumps(body.value).encode())
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        size = open_image(_read(review, found)).size
        if (body.value["width"], body.value["height"]) != size:
            raise HTTPException(422, f"the photograph has {size[0]} x {size[1]} px")
    version = review.database.write(
        lambda connection: drawings.save_drawing(
            connection, reviewer, found.origin, body.value, body.based_on, time.time()
        )
    )
    return {"version": version}
