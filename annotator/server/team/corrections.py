"""The reviewers' API of corrections: the masks of an item, clicks that the server answers, and versions to keep."""

import threading
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field
from sqlalchemy import Connection, select

from rasura.annotator.server import schemas
from rasura.annotator.server.images import NoPicture
from rasura.annotator.server.review import CurrentReview, Review, SignedIn, get_program_version
from rasura.annotator.server.routes import PROBLEMS
from rasura.annotator.server.team.packed_masks import BadMask, pack_mask, unpack_mask
from rasura.annotator.store import vote_log
from rasura.annotator.store.database import items
from rasura.annotator.store.enums import Task
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.team import corrections
from rasura.annotator.store.team.corrections import CorrectedMask, Part
from rasura.annotator.store.team.search import read_task
from rasura.annotator.store.vote_log import Submission
from rasura.manifests.images import BadImage, Mask, decode_image, decode_mask, encode_mask, open_image

MAX_PACKED = 3_000_000
"""Characters of a packed mask."""
TURN_S = 8.0
"""Seconds that a repair waits for its turn: a thread of the server waits with it."""

router = APIRouter(prefix="/api", responses=PROBLEMS)
_turn = threading.BoundedSemaphore(1)
"""One repair at a time: each holds a decoded picture."""


class PackedMask(schemas.RequestBody):
    width: int = Field(ge=1, le=100_000)
    height: int = Field(ge=1, le=100_000)
    bits: str = Field(max_length=MAX_PACKED, description="one bit a pixel, rows padded to bytes, zlib, base64")

    def unpack(self) -> Mask:
        """Return the mask, (h, w) bool."""
        try:
            return unpack_mask(self.bits, self.width, self.height)
        except BadMask as error:
            raise HTTPException(422, str(error)) from None


class RepairRequest(PackedMask):
    item: schemas.ItemId
    tool: Literal["add", "erase", "snap"]
    x: int = Field(0, ge=0, description="px of the click")
    y: int = Field(0, ge=0)
    radius: float = Field(gt=0, le=100_000, allow_inf_nan=False, description="px that the change may reach")


class CorrectionRequest(PackedMask):
    item: schemas.ItemId
    nonce: schemas.Nonce
    part: Part
    steps: int = Field(0, ge=0, le=100_000, description="strokes and clicks that it took")


class WithdrawRequest(schemas.RequestBody):
    item: schemas.ItemId
    nonce: schemas.Nonce
    part: Part


class Version(BaseModel):
    version: int


class RepairedMask(BaseModel):
    bits: str


class Masks(BaseModel):
    """What can be corrected of an item, and which versions it has now: 0 is the row's own."""

    parts: dict[str, int]
    can_click: bool


def _get_item(connection: Connection, reviewer: Reviewer, item: str) -> Any:
    if not vote_log.may_view(connection, reviewer, item):
        raise HTTPException(404, "you have no such item")
    return connection.execute(select(items).where(items.c.id == item)).one()


def _read_mask(review: Review, connection: Connection, row: Any, part: str) -> bytes:
    """Read the newest version of a mask, or the row's own. A row without M_fg has its object mask in its place.

    So has every row where a removal is judged: else the M_fg of a row with a known answer would tell it.
    """
    newest = corrections.find_correction(connection, row.id, part)
    if newest is not None and newest.png is not None:
        return bytes(newest.png)
    place = (row.place_table, row.place_shard, row.place_row)
    if part == "foreground_mask" and read_task(connection, row.id) == Task.REMOVAL:
        part = "mask"
    try:
        return review.pictures.read_picture(place, part)
    except (IndexError, OSError):
        if part == "foreground_mask":
            return review.pictures.read_picture(place, "mask")
        raise


@router.get("/items/{item}/masks")
def get_masks(
    item: Annotated[str, PathParameter(pattern=r"^[0-9a-f]{32}$")], review: CurrentReview, reviewer: SignedIn
) -> Masks:
    """Return the versions of an item's masks."""
    with review.database.read() as connection:
        _get_item(connection, reviewer, item)
        newest = {part: corrections.find_correction(connection, item, part) for part in corrections.PARTS}
    return Masks(
        parts={part: row.version if row else 0 for part, row in newest.items()}, can_click=review.repairer is not None
    )


@router.get("/items/{item}/masks/{part}", response_class=Response)
def get_mask(
    item: Annotated[str, PathParameter(pattern=r"^[0-9a-f]{32}$")],
    part: Part,
    review: CurrentReview,
    reviewer: SignedIn,
) -> Response:
    """Return a mask of an item, as it was corrected last: 1-bit PNG."""
    with review.database.read() as connection:
        row = _get_item(connection, reviewer, item)
        try:
            data = _read_mask(review, connection, row, part)
        except (IndexError, OSError) as error:
            raise NoPicture(f"the {part} of item {item} cannot be read: {error}") from error
    return Response(data, media_type="image/png")


def _unpack(body: PackedMask, own: bytes) -> Mask:
    """Unpack a mask of a request, once it is known to have the size of the item's own."""
    width, height = open_image(own).size
    if (body.width, body.height) != (width, height):
        raise HTTPException(422, f"the item's mask has {width} x {height} px, this one {body.width} x {body.height}")
    return body.unpack()


@router.post("/repairs")
def repair_mask(body: RepairRequest, review: CurrentReview, reviewer: SignedIn) -> RepairedMask:
    """Apply a click to a mask, or snap its outline to edges of the picture. Nothing is stored."""
    if review.repairer is None:
        raise HTTPException(409, "this server answers no clicks; use the brush")
    if body.tool != "snap" and not (body.x < body.width and body.y < body.height):
        raise HTTPException(422, f"the click at ({body.x}, {body.y}) is outside of the picture")
    with review.database.read() as connection:
        row = _get_item(connection, reviewer, body.item)
        mask = _unpack(body, _read_mask(review, connection, row, "mask"))
    if not _turn.acquire(timeout=TURN_S):
        raise HTTPException(503, "others are correcting masks; try again", {"retry-after": "2"})
    try:
        data, _ = review.pictures.get(row, "source")
        picture = decode_image(data)
        if picture.shape[:2] != mask.shape:
            raise HTTPException(422, f"the picture has {picture.shape[1]} x {picture.shape[0]} px")
        if body.tool == "snap":
            repaired = review.repairer.snap(picture, mask, body.radius)
        else:
            place = body.x, body.y, body.tool == "add", body.radius
            repaired = review.repairer.click(body.item, picture, mask, *place)
    except BadImage as error:
        raise NoPicture(f"the source of item {body.item} cannot be read: {error}") from error
    finally:
        _turn.release()
    return RepairedMask(bits=pack_mask(repaired))


@router.post("/corrections")
def add_correction(body: CorrectionRequest, review: CurrentReview, reviewer: SignedIn) -> Version:
    """Keep a corrected mask as the next version. A run makes the row anew with it (source `corrections`)."""
    with review.database.read() as connection:
        row = _get_item(connection, reviewer, body.item)
        own = _read_mask(review, connection, row, "mask")
    mask = _unpack(body, own)
    if not mask.any():
        raise HTTPException(422, "the mask is empty: a row needs an object")
    if body.part == "foreground_mask":
        mask = mask | decode_mask(own)  # the effects of an object are never without it
    corrected = CorrectedMask(body.part, body.width, body.height, encode_mask(mask), body.steps)
    return _store(review, reviewer, body.item, body.nonce, corrected)


@router.post("/corrections/withdraw")
def withdraw_correction(body: WithdrawRequest, review: CurrentReview, reviewer: SignedIn) -> Version:
    """Put the row's own mask back, as the next version."""
    return _store(review, reviewer, body.item, body.nonce, CorrectedMask(body.part, 0, 0, None, 0))


def _store(review: Review, reviewer: Reviewer, item: str, nonce: str, mask: CorrectedMask) -> Version:
    submission = Submission(item, nonce, remark=mask.part, version=get_program_version())
    version = review.database.write(
        lambda connection: corrections.add_correction(connection, reviewer, submission, mask, time.time())
    )
    return Version(version=version)
