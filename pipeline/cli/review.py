"""`rasura review …` and `rasura votes …`. Nothing heavy is imported before a command needs it."""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from rasura.manifests.spelling import format_count
from rasura.pipeline.cli.options import APP_SETTINGS, DefaultCommandGroup, FlowsOption, RunArgument, SetOption
from rasura.pipeline.cli.output import echo, echo_line

if TYPE_CHECKING:
    from rasura.annotator.store.database import Database
    from rasura.annotator.store.policy import Policy

HOST, PORT = "127.0.0.1", 8765
SECTION = "review"
"""The key under which the settings of a review are in a recipe; `--set` takes them with and without it."""


class _ReviewGroup(DefaultCommandGroup):
    """`rasura review RUN` is `rasura review serve RUN`."""

    default: ClassVar[str] = "serve"


review = typer.Typer(help="Have people judge a run's candidates: rasura review RUN.", cls=_ReviewGroup, **APP_SETTINGS)
votes = typer.Typer(help="Export the votes of a review, or import votes into one.", **APP_SETTINGS)

DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", metavar="URL|FILE", help="postgresql://… or an SQLite file; RUN/review/review.sqlite."),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The reviewer's name.")]
UrlOption = Annotated[
    str | None, typer.Option("--public-url", metavar="URL", help="Address of the page, for the link.")
]


@contextlib.contextmanager
def open_database(run: str, location: str | None, create: bool) -> "Iterator[Database]":
    """Open the database of a run's review, and close it in the end; a new one of a review that is refused is deleted.

    Args:
        run: the run.
        location: a URL or file; None: the SQLite file in the run.
        create: create it where it is not there.

    Raises:
        NoDatabase: the run is remote and no location is given, or there is no database.
        NoRun: there is no run to review.
    """
    from rasura.annotator.store.database import Database, NoDatabase
    from rasura.annotator.store.items import has_content
    from rasura.manifests.run_layout import REVIEW_DATABASE, read_plan
    from rasura.manifests.storage import Store, is_remote

    if location is None:
        if is_remote(run):
            raise NoDatabase(f"'{run}' is not on this machine: name with --database where the review is to be kept")
        if create:
            read_plan(Store(run))
        location = str(Store(run).find(REVIEW_DATABASE))
    database = Database(location, create)
    is_refused = False
    try:
        yield database
    except Exception:
        is_refused = database.is_new and not has_content(database)
        raise
    finally:
        database.close()
        if is_refused:
            database.delete()


def read_policy(run: str, overrides: Sequence[str] | None) -> "Policy":
    """Read the policy of a review from the run's recipe, with the values of `--set`.

    Raises:
        RecipeError: a key or a value is wrong.
    """
    from rasura.annotator.store.policy import Policy
    from rasura.manifests.run_layout import RECIPE
    from rasura.manifests.storage import Store
    from rasura.pipeline.recipe.load import parse_yaml, validate
    from rasura.pipeline.recipe.overrides import apply_overrides, parse_overrides
    from rasura.pipeline.recipe.positions import Positions

    store, raw = Store(run), {}
    if store.exists(RECIPE):
        recipe, _ = parse_yaml(store.read(RECIPE).decode(), f"{store.uri}/{RECIPE}")
        raw = dict(recipe.get(SECTION) or {})
    positions = Positions(f"{store.uri}/{RECIPE}")
    changes = parse_overrides(overrides or (), "votes=2")
    changes = [replace(change, keys=change.keys[change.keys[0] == SECTION :]) for change in changes]
    apply_overrides(raw, changes, positions)
    policy: Policy = validate(raw, positions, Policy)
    return policy


def _resolve_page_url(public_url: str | None) -> str:
    """Return the address of the page for links.

    Raises:
        BadAddress: it is no address of a page.
    """
    from rasura.annotator.server.address import format_url, parse_public_url

    return parse_public_url(public_url) if public_url else format_url(HOST, PORT)


def _make_hint(run: str, database: str | None, url: str) -> str:
    """Make the command that adds the first reviewer of a review as it is served."""
    options = [f"--database {shlex.quote(database)}"] if database else []
    if url != _resolve_page_url(None):
        options.append(f"--public-url {url}")
    return " ".join(["rasura review add-reviewer", shlex.quote(run), "NAME --admin", *options])


@review.command(hidden=True)
def serve(
    run: RunArgument,
    host: Annotated[str, typer.Option(help="Address to bind; 0.0.0.0 can be reached from other machines.")] = HOST,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: a free one.")] = PORT,
    database: DatabaseOption = None,
    public_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Address that reviewers type, behind a proxy or from other machines."),
    ] = None,
    set: SetOption = None,
    flow: FlowsOption = None,
) -> None:
    """Serve the page on which people judge a run's candidates."""
    from rasura.annotator.server.address import EVERY_ADDRESS, bind_socket, format_url, parse_public_url
    from rasura.annotator.server.app import create_app, serve_app
    from rasura.annotator.server.middleware import LOOPBACK, parse_host
    from rasura.annotator.server.review import Review
    from rasura.annotator.stats.accounting import read_accounting
    from rasura.annotator.store import reviewers as people
    from rasura.annotator.store.items import refresh_queue
    from rasura.annotator.store.server_lock import lock_server
    from rasura.manifests.storage import Store

    policy = read_policy(run, set)
    public_url = parse_public_url(public_url) if public_url else None
    with (
        open_database(run, database, create=True) as review_database,
        lock_server(review_database) as note_address,
        contextlib.closing(bind_socket(host, port)) as bound,
    ):
        refresh_queue(Store(run), review_database, policy, flow or [])
        own_url = format_url(host, bound.getsockname()[1])
        note_address(own_url)
        with review_database.read() as connection:
            reviewers, counts = people.count_active(connection), read_accounting(connection)
        names = [url.partition("://")[2] for url in (own_url, public_url) if url]
        hosts = (*LOOPBACK, *map(parse_host, names))
        secure = bool(public_url and public_url.startswith("https://"))
        app = create_app(Review(Store(run), review_database, policy, flow or [], hosts, secure))
        echo(f"{format_count(counts.candidates, 'candidate')}, {counts.voted} of them voted")
        echo(f"review: {public_url or own_url}/")
        if host in EVERY_ADDRESS and not public_url:
            echo("only this machine can open it: name with --public-url the address that reviewers type")
        if not reviewers:
            echo(f"nobody can sign in yet: {_make_hint(run, database, public_url or own_url)}")
        if not serve_app(app, bound, is_behind_proxy=bool(public_url)):
            raise typer.Exit(1)


@review.command()
def add_reviewer(
    run: RunArgument,
    name: NameArgument,
    admin: Annotated[bool, typer.Option("--admin", help="May see who gave which verdict.")] = False,
    database: DatabaseOption = None,
    public_url: UrlOption = None,
) -> None:
    """Add a reviewer and print the link to sign in with. Only a hash of its token is kept."""
    from rasura.annotator.store import reviewers as people
    from rasura.annotator.store.items import check_candidates
    from rasura.manifests.storage import Store

    url = _resolve_page_url(public_url)
    check_candidates(Store(run))
    with open_database(run, database, create=True) as review_database:
        token = review_database.write(lambda connection: people.add_reviewer(connection, name, admin))
    echo(f"{url}/#token={token}")


@review.command()
def new_token(
    run: RunArgument,
    name: NameArgument,
    database: DatabaseOption = None,
    public_url: UrlOption = None,
) -> None:
    """Give a reviewer a new link; the old one and all sessions end."""
    from rasura.annotator.store import reviewers as people

    url = _resolve_page_url(public_url)
    with open_database(run, database, create=False) as review_database:
        token = review_database.write(lambda connection: people.renew_token(connection, name))
    echo(f"{url}/#token={token}")


@review.command()
def remove_reviewer(run: RunArgument, name: NameArgument, database: DatabaseOption = None) -> None:
    """Sign a reviewer out for good. The votes stay."""
    from rasura.annotator.store import reviewers as people

    with open_database(run, database, create=False) as review_database:
        review_database.write(lambda connection: people.remove_reviewer(connection, name))
    echo(f"{name} can no longer sign in")


@review.command()
def check(run: RunArgument, database: DatabaseOption = None) -> None:
    """Account for every candidate as voted, leased or waiting, and check that the queue follows from the log."""
    from rasura.annotator.stats.accounting import find_faults, read_accounting
    from rasura.annotator.store.items import check_opened

    with open_database(run, database, create=False) as review_database, review_database.read() as connection:
        check_opened(connection, run)
        problems, counts = find_faults(connection), read_accounting(connection)
    echo(str(counts))
    for fault in problems:
        echo_line(fault)
    if problems:
        raise typer.Exit(1)


@votes.command("export")
def export_votes(
    run: RunArgument,
    out: Annotated[
        str, typer.Option(metavar="URI", help="Folder or bucket for votes.parquet, votes.jsonl, verdicts.parquet.")
    ],
    database: DatabaseOption = None,
    weighted: Annotated[
        bool, typer.Option("--weighted", help="Verdicts weighted by each reviewer's record on known answers.")
    ] = False,
    label_studio: Annotated[bool, typer.Option("--label-studio", help="Label Studio's JSON and pictures too.")] = False,
) -> None:
    """Write the whole log of votes, and the verdict on each candidate."""
    from rasura.annotator.exchange.label_studio import export_label_studio
    from rasura.annotator.exchange.votes_file import export_votes
    from rasura.annotator.server.images import PictureReader
    from rasura.annotator.store.items import check_opened
    from rasura.manifests.storage import Store, is_remote

    with open_database(run, database, create=False) as review_database, review_database.read() as connection:
        check_opened(connection, run)
        result = export_votes(connection, Store(out), weighted)
        if label_studio:
            if is_remote(out):
                message = f"'{out}' is no folder of this machine, where Label Studio's pictures are written"
                raise typer.BadParameter(message, param_hint="--out")
            count = export_label_studio(connection, Path(out), PictureReader(Store(run)))
            echo(f"{out}/label-studio.json: {format_count(count, 'task')}")
    entries, items = format_count(result.entries, "entry of the log"), format_count(result.verdicts, "item")
    echo(f"{out}: {entries}, {items} with a verdict")


@votes.command("import")
def import_votes(
    run: RunArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="votes.parquet, votes.jsonl or Label Studio's JSON.")],
    database: DatabaseOption = None,
    set: SetOption = None,
) -> None:
    """Import votes. Entries that are there already are not added again."""
    from rasura.annotator.exchange.votes_file import append_votes, check_imported, read_votes
    from rasura.annotator.store.items import refresh_queue
    from rasura.manifests.storage import Store

    policy, votes = read_policy(run, set), read_votes(file)
    with open_database(run, database, create=True) as review_database:
        refresh_queue(Store(run), review_database, policy)
        result = append_votes(review_database, policy, votes)
    check_imported(result, file)
    added, were, are = (
        format_count(result.added, "entry"),
        _agree(result.duplicates, "was"),
        _agree(result.unknown, "is"),
    )
    echo(f"{added} added, {were} there, {are} of items that the run does not have")


def _agree(count: int, verb: str) -> str:
    """Format a number with its verb."""
    return f"{count} {verb if count == 1 else {'was': 'were', 'is': 'are'}[verb]}"
