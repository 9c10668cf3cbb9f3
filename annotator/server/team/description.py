"""The description of the API (OpenAPI): a sentence for each operation, and who may call it."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from rasura.annotator.server.admin import require_admin
from rasura.annotator.server.review import require_reviewer

SESSION, TOKEN = "session", "token"  # names in the description, no secrets
ABOUT = {
    SESSION: "The cookie of somebody who has signed in on the page. A POST names the server's own address as `Origin`.",
    TOKEN: "A token of Team, Programs, with the scopes that an operation needs: `Authorization: Bearer rsr_…`. A POST "
    "names the server's own address as `Origin`.",
}


def describe_api(app: FastAPI, cookie: str) -> dict[str, Any]:
    """Describe the API of a review.

    Args:
        app: the server.
        cookie: name of the cookie of a session.
    """
    description: dict[str, Any] = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schemes = description.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes[SESSION] = {"type": "apiKey", "in": "cookie", "name": cookie, "description": ABOUT[SESSION]}
    schemes[TOKEN] = {"type": "http", "scheme": "bearer", "description": ABOUT[TOKEN]}
    for route in _list_routes(app):
        for method in (route.methods or ()) if route.include_in_schema else ():
            _describe_operation(description["paths"][route.path_format][method.lower()], route)
    return description


def _list_routes(app: FastAPI) -> Iterator[APIRoute]:
    """Yield all routes; newer versions of FastAPI keep those of a router together."""
    for route in app.routes:
        router = getattr(route, "original_router", None)
        yield from (one for one in (router.routes if router else [route]) if isinstance(one, APIRoute))


def _describe_operation(operation: dict[str, Any], route: APIRoute) -> None:
    """Give an operation its sentence as a summary, and who may call it."""
    first, _, rest = (operation.get("description") or operation["summary"]).partition("\n")
    operation["summary"] = first.strip().rstrip(".")
    calls = list(_list_calls(route.dependant))
    scopes = [str(call.scope) for call in calls if hasattr(call, "scope")]
    if scopes:
        operation["security"], who = [{TOKEN: scopes}], f"Programs with the scope `{scopes[0]}`."
    elif require_reviewer in calls:
        operation["security"] = [{SESSION: []}]
        is_expert = route.path.startswith("/api/expert/")
        who = "Admins." if require_admin in calls else "Experts and admins." if is_expert else "Whoever is signed in."
    else:
        operation["security"], who = [], "Everybody."
    operation["description"] = f"{who} {rest.strip()}".strip()


def _list_calls(dependant: Dependant) -> Iterator[Any]:
    """Yield what an operation depends on, and what that depends on."""
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _list_calls(dependency)
