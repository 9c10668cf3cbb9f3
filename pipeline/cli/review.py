"""`rasura review …` and `rasura votes …`. Nothing heavy is imported before a command needs it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rasura.annotator.store.database import Database
    from rasura.annotator.store.policy import Policy

HOST, PORT = "127.0.0.1", 8765


class _ServesByDefault(TyperGroup):
    """`rasura review RUN` is `rasura review serve RUN`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["serve", *args]
        return list(super().parse_args(ctx, args))


_OPTIONS: dict[str, Any] = {"no_args_is_help": True, "pretty_exceptions_enable": False, "rich_markup_mode": None,
                            "add_completion": False}  # fmt: skip
review = typer.Typer(help="Have people judge a run's candidates: rasura review RUN.", cls=_ServesByDefault, **_OPTIONS)
votes = typer.Typer(help="Take votes out of a review, or bring them in.", **_OPTIONS)

Run = Annotated[str, typer.Argument(metavar="RUN", help="Folder or URI that `rasura run` wrote into.")]
Where = Annotated[
    str | None,
    typer.Option("--database", metavar="URL|FILE", help="postgresql://… or an SQLite file; RUN/review/review.sqlite."),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The reviewer's name.")]


def database_of(run: str, where: str | None, create: bool) -> "Database":
    """A run's review."""
    from rasura.annotator.store.database import Database, NoDatabase
    from rasura.manifests.storage import is_remote

    if where is None:
        if is_remote(run):
            raise NoDatabase(f"{run} is not on this machine: say with --database where the review is to be kept")
        if create and not (Path(run) / "plan.json").exists():
            raise FileNotFoundError(f"'{run}' is no run: it has no plan.json; give the folder `rasura run` wrote into")
        where = str(Path(run.removeprefix("file://")) / "review" / "review.sqlite")
    return Database(where, create)


def policy_of(run: str, overrides: list[str]) -> "Policy":
    """A review's policy: what the run's recipe says, with KEY=VALUE from the command line over it."""
    import yaml
    from pydantic import ValidationError

    from rasura.annotator.store.policy import Policy
    from rasura.manifests.storage import Store

    store, told = Store(run), dict[str, Any]()
    if store.exists("recipe.yaml"):
        told |= (yaml.safe_load(store.read("recipe.yaml")) or {}).get("review") or {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or key not in Policy.model_fields:
            known = ", ".join(Policy.model_fields)
            raise typer.BadParameter(f"'{override}': expected KEY=VALUE; keys are {known}", param_hint="--set")
        told[key] = yaml.safe_load(value)
    try:
        return Policy(**told)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "policy"
        words = str(fault["msg"]).removeprefix("Value error, ")
        raise typer.BadParameter(f"{where}: {words}", param_hint="review") from None


def _link(public_url: str | None, token: str) -> str:
    return f"{(public_url or f'http://{HOST}:{PORT}').rstrip('/')}/#token={token}"


@review.command(hidden=True)
def serve(
    run: Run,
    host: Annotated[str, typer.Option(help="Address to bind; others than this machine reach 0.0.0.0.")] = HOST,
    port: Annotated[int, typer.Option(min=0, max=65535)] = PORT,
    database: Where = None,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="What reviewers type, behind a proxy or from other machines.")
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Of the policy, e.g. votes=2, order=random.")
    ] = None,
    flow: Annotated[list[str] | None, typer.Option(metavar="FLOW", help="Only these flows' candidates.")] = None,
) -> None:
    """Serve the page on which people judge a run's candidates."""
    import logging
    from urllib.parse import urlsplit

    import uvicorn

    from rasura.annotator.server.app import create_app
    from rasura.annotator.server.middleware import LOOPBACK
    from rasura.annotator.server.review import Review
    from rasura.annotator.stats.accounting import account
    from rasura.annotator.store import reviewers as people
    from rasura.annotator.store.items import refresh
    from rasura.manifests.storage import Store

    policy = policy_of(run, set or [])
    opened = database_of(run, database, create=True)
    try:
        refresh(Store(run), opened, policy, flow or [])
        with opened.read() as connection:
            reviewers, counted = people.count(connection), account(connection)
        named = [urlsplit(public_url).hostname or ""] if public_url else []
        hosts = (*LOOPBACK, *named, *([host] if host != "0.0.0.0" else []))
        secure = bool(public_url and public_url.startswith("https://"))
        app = create_app(Review(Store(run), opened, policy, flow or [], hosts, secure))
        typer.echo(f"{counted.candidates} candidates, {counted.voted} of them voted")
        typer.echo(f"review: {public_url or f'http://{host}:{port}'}/")
        if not reviewers:
            typer.echo(f"nobody can sign in yet: rasura review add-reviewer {run} NAME --admin")
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        uvicorn.run(app, host=host, port=port, access_log=False, server_header=False, log_config=None,
                    proxy_headers=bool(public_url), timeout_graceful_shutdown=5)  # fmt: skip
    finally:
        opened.close()


@review.command()
def add_reviewer(
    run: Run,
    name: Name,
    admin: Annotated[bool, typer.Option("--admin", help="May see who said what.")] = False,
    database: Where = None,
    public_url: Annotated[str | None, typer.Option(metavar="URL", help="Where the page is, for the link.")] = None,
) -> None:
    """Add a reviewer and print the link to sign in with. Only a hash of its token is kept."""
    from rasura.annotator.store import reviewers as people

    opened = database_of(run, database, create=True)
    try:
        token = opened.write(lambda connection: people.add_reviewer(connection, name, admin))
    finally:
        opened.close()
    typer.echo(_link(public_url, token))


@review.command()
def new_token(
    run: Run,
    name: Name,
    database: Where = None,
    public_url: Annotated[str | None, typer.Option(metavar="URL", help="Where the page is, for the link.")] = None,
) -> None:
    """Give a reviewer a new link; the old one and all sessions end."""
    from rasura.annotator.store import reviewers as people

    opened = database_of(run, database, create=False)
    try:
        token = opened.write(lambda connection: people.new_token(connection, name))
    finally:
        opened.close()
    typer.echo(_link(public_url, token))


@review.command()
def remove_reviewer(run: Run, name: Name, database: Where = None) -> None:
    """Sign a reviewer out for good. The votes stay."""
    from rasura.annotator.store import reviewers as people

    opened = database_of(run, database, create=False)
    try:
        opened.write(lambda connection: people.remove_reviewer(connection, name))
    finally:
        opened.close()
    typer.echo(f"{name} can no longer sign in")


@review.command()
def check(run: Run, database: Where = None) -> None:
    """Account for every candidate as voted, leased or waiting, and check that the queue follows from the log."""
    from rasura.annotator.stats.accounting import account, faults

    opened = database_of(run, database, create=False)
    try:
        with opened.read() as connection:
            found, counted = faults(connection), account(connection)
    finally:
        opened.close()
    typer.echo(
        f"{counted.candidates} candidates: {counted.voted} voted, {counted.leased} leased, {counted.waiting} waiting; "
        f"{counted.votes} votes"
    )
    for fault in found:
        typer.echo(fault)
    if found:
        raise typer.Exit(1)


@votes.command("export")
def export_votes(
    run: Run,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where votes.parquet, votes.jsonl, verdicts.parquet go.")],
    database: Where = None,
    weighted: Annotated[
        bool, typer.Option("--weighted", help="Verdicts weighted by each reviewer's record on known answers.")
    ] = False,
    label_studio: Annotated[bool, typer.Option("--label-studio", help="Label Studio's JSON and pictures too.")] = False,
) -> None:
    """Write the whole log and what it says of each candidate."""
    from rasura.annotator.exchange.label_studio import export_label_studio
    from rasura.annotator.exchange.votes_file import export
    from rasura.annotator.server.images import Pictures
    from rasura.manifests.storage import Store

    opened = database_of(run, database, create=False)
    try:
        with opened.read() as connection:
            told = export(connection, Store(str(out)), weighted)
            if label_studio:
                count = export_label_studio(connection, out, Pictures(Store(run)))
                typer.echo(f"{out}/label-studio.json: {count} tasks")
    finally:
        opened.close()
    typer.echo(f"{out}: {told.entries} entries of the log, {told.verdicts} items with a verdict")


@votes.command("import")
def import_votes(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="votes.parquet, votes.jsonl or Label Studio's JSON.")],
    database: Where = None,
    set: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Of the policy.")] = None,
) -> None:
    """Bring votes in. What is there already is not noted twice."""
    from rasura.annotator.exchange.votes_file import read_votes, take_in
    from rasura.annotator.store.items import refresh
    from rasura.manifests.storage import Store

    policy = policy_of(run, set or [])
    opened = database_of(run, database, create=True)
    try:
        refresh(Store(run), opened, policy)
        told = take_in(opened, policy, read_votes(file))
    finally:
        opened.close()
    typer.echo(
        f"{told.added} entries added, {told.known} were there, {told.unknown} are of items the run does not hold"
    )
