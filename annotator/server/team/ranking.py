"""The reviewers' API of rankings: the candidates of a scene side by side."""

import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from rasura.annotator.server import schemas
from rasura.annotator.server.admin import Admin
from rasura.annotator.server.review import CurrentReview, SignedIn
from rasura.annotator.server.routes import PROBLEMS
from rasura.annotator.stats.ratings import rate_removers
from rasura.annotator.store.team import rankings

router = APIRouter(prefix="/api", responses=PROBLEMS)


class RankingRequest(schemas.RequestBody):
    scene: str = Field(min_length=1, max_length=1000)
    nonce: schemas.Nonce
    ranking: list[list[schemas.ItemId]] = Field(
        max_length=rankings.MOST_SHOWN,
        description="groups of items, the best first; equals share a group; empty: skipped",
    )
    seconds: float | None = Field(None, ge=0, le=1e6, allow_inf_nan=False)


class Scene(BaseModel):
    """The candidates of a scene; null where none waits."""

    scene: str
    items: list[str]
    waiting: int


@router.post("/scenes/next")
def open_scene(review: CurrentReview, reviewer: SignedIn) -> Scene | None:
    """Return the candidates of the next scene that is to be ranked."""
    found = review.database.write(
        lambda connection: rankings.lease_scene(connection, review.policy, reviewer, time.time())
    )
    return Scene(**found) if found else None


@router.post("/rankings")
def add_ranking(body: RankingRequest, review: CurrentReview, reviewer: SignedIn) -> schemas.Done:
    """Store a ranking of the candidates of a scene."""
    review.database.write(
        lambda connection: rankings.add_ranking(
            connection, review.policy, reviewer, body.scene, body.ranking, body.seconds, body.nonce, time.time()
        )
    )
    return schemas.Done()


@router.get("/admin/ratings")
def list_ratings(review: CurrentReview, admin: Admin) -> list[dict[str, Any]]:
    """Return the ratings of the removers, the best first."""
    with review.database.read() as connection:
        given = rankings.list_rankings(connection)
    return [asdict(rating) for rating in rate_removers(given)]
