"""`rasura review …` and `rasura votes …`. Nothing heavy is imported before a command needs it."""

import contextlib
import hashlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from rasura.manifests.spelling import format_count
from rasura.pipeline.cli.options import APP_SETTINGS, DefaultCommandGroup, RunArgument, SetOption
from rasura.pipeline.cli.output import echo, echo_line

if TYPE_CHECKING:
    from rasura.annotator.server.review import Review
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
    typer.Option(
        "--database",
        metavar="URL|FILE",
        help="postgresql://… or an SQLite file, in place of RUN/review/review.sqlite. The server writes verdicts and "
        "corrections into RUN/review all the same, unless the run has a review of its own there.",
    ),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The reviewer's name.")]
UrlOption = Annotated[
    str | None,
    typer.Option("--public-url", metavar="URL", help="Address of the page, for the link; where it was served last."),
]


def find_database(run: str) -> Path:
    """Return the file of a run's review: in the run, or for a run in a bucket in this machine's cache.

    What is voted on a run in a bucket is also written into the run, where other machines find it.
    """
    from rasura.manifests.remote_files import find_cache
    from rasura.manifests.run_layout import REVIEW_DATABASE
    from rasura.manifests.storage import Store

    store = Store(run)
    if (place := store.find(REVIEW_DATABASE)) is not None:
        return place
    name = hashlib.sha256(store.uri.encode()).hexdigest()[:16]
    return find_cache().parent / "reviews" / f"{name}.sqlite"


ReviewedFlowsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--flow",
        metavar="FLOW",
        help="Flows whose rows are judged, triplets or candidates; without it the candidates, else the triplets.",
    ),
]
SegmenterOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILES", help="SAM that answers clicks on masks: ENCODER.onnx,DECODER.onnx, a .pth, or a folder."
    ),
]


@contextlib.contextmanager
def open_database(run: str, location: str | None, create: bool) -> "Iterator[Database]":
    """Open the database of a run's review, and close it in the end; a new one of a review that is refused is deleted.

    Args:
        run: the run.
        location: a URL or file; None: see `find_database`.
        create: create it where it is not there.

    Raises:
        NoDatabase: there is none, and none is to be created.
        NoRun: there is no run to review.
    """
    from rasura.annotator.store.database import Database
    from rasura.annotator.store.items import has_content
    from rasura.manifests.run_layout import read_plan
    from rasura.manifests.storage import Store

    if location is None:
        if create:
            read_plan(Store(run))
        location = str(find_database(run))
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


def _print_link(database: "Database", public_url: str | None, token: str) -> None:
    """Print the link of a token: with the address that is given, or at which the review was served last."""
    from rasura.annotator.server.address import format_url
    from rasura.annotator.store.server_lock import read_address

    with database.read() as connection:
        url = public_url or read_address(connection) or format_url(HOST, PORT)
    echo(f"{url}/#token={token}")


def _parse_public_url(url: str | None) -> str | None:
    from rasura.annotator.server.address import parse_public_url

    return parse_public_url(url) if url else None


def _make_hint(run: str, database: str | None) -> str:
    """Make the command that adds the first reviewer of a review as it is served."""
    options = [f"--database {shlex.quote(database)}"] if database else []
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
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Proxy whose headers name the reviewers' addresses; with --public-url, one of this machine.",
        ),
    ] = None,
    set: SetOption = None,
    flow: ReviewedFlowsOption = None,
    segmenter: SegmenterOption = None,
) -> None:
    """Serve the page on which people judge a run's candidates or triplets, and correct masks."""
    from rasura.annotator.exchange.publish import fetch_reviews
    from rasura.annotator.server.address import EVERY_ADDRESS, bind_socket, format_url
    from rasura.annotator.server.app import create_app, serve_app
    from rasura.annotator.server.middleware import LOOPBACK, parse_host
    from rasura.annotator.server.review import Review
    from rasura.annotator.store.items import refresh_queue
    from rasura.annotator.store.server_lock import lock_server, store_address
    from rasura.manifests.storage import Store
    from rasura.pipeline.cli.review_tools import check_drawing, open_repair

    policy = read_policy(run, set)
    public_url = _parse_public_url(public_url)
    proxies = trusted_proxy or (["127.0.0.1", "::1"] if public_url else [])
    with (
        open_database(run, database, create=True) as review_database,
        lock_server(review_database) as note_address,
        contextlib.closing(bind_socket(host, port)) as bound,
    ):
        refresh_queue(Store(run), review_database, policy, flow or [])
        if Store(run).local is None:
            fetch_reviews(Store(run), review_database, policy, check_drawing)
        own_url = format_url(host, bound.getsockname()[1])
        note_address(own_url)
        review_database.write(lambda connection: store_address(connection, public_url or own_url))
        names = [url.partition("://")[2] for url in (own_url, public_url) if url]
        hosts = (*LOOPBACK, *map(parse_host, names))
        state = Review(Store(run), review_database, policy, flow or [], hosts, public_url)
        app = create_app(replace(state, repairer=open_repair(segmenter), check_drawing=check_drawing))
        _print_start(state, public_url or own_url, host in EVERY_ADDRESS and not public_url, _make_hint(run, database))
        if not serve_app(app, bound, proxies):
            raise typer.Exit(1)


def _print_start(state: "Review", url: str, is_hidden: bool, hint: str) -> None:
    """Print what is served, and what keeps people or verdicts from where they are to get.

    Args:
        state: of the server.
        url: that reviewers type.
        is_hidden: no other machine can open this address.
        hint: the command that adds the first reviewer.
    """
    from rasura.annotator.exchange.publish import find_other_review
    from rasura.annotator.stats.accounting import read_accounting
    from rasura.annotator.store.reviewers import count_active

    with state.database.read() as connection:
        reviewers, counts = count_active(connection), read_accounting(connection)
    echo(f"{format_count(counts.candidates, 'item')}, {counts.voted} of them voted")
    echo(f"review: {url}/")
    if other := find_other_review(state.run, state.database):
        echo(other)
    if is_hidden:
        echo("only this machine can open it: name with --public-url the address that reviewers type")
    if not reviewers:
        echo(f"nobody can sign in yet: {hint}")


@review.command()
def add_reviewer(
    run: RunArgument,
    name: NameArgument,
    admin: Annotated[bool, typer.Option("--admin", help="May see who gave which verdict.")] = False,
    database: DatabaseOption = None,
    public_url: UrlOption = None,
) -> None:
    """Add a reviewer and print a link, which signs in once, within a week. Only a hash of its token is kept."""
    from rasura.annotator.store import reviewers as people
    from rasura.annotator.store.items import check_reviewable
    from rasura.manifests.storage import Store

    public_url = _parse_public_url(public_url)
    check_reviewable(Store(run))
    with open_database(run, database, create=True) as review_database:
        token = review_database.write(lambda connection: people.add_reviewer(connection, name, admin))
        _print_link(review_database, public_url, token)


@review.command()
def new_token(
    run: RunArgument,
    name: NameArgument,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the sessions, as for another device.")] = False,
    database: DatabaseOption = None,
    public_url: UrlOption = None,
) -> None:
    """Give a reviewer a new link; earlier links and all sessions end, unless they are kept."""
    from rasura.annotator.store import reviewers as people

    public_url = _parse_public_url(public_url)
    with open_database(run, database, create=False) as review_database:
        token = review_database.write(lambda connection: people.renew_token(connection, name, keep=keep))
        _print_link(review_database, public_url, token)


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
    out: Annotated[str, typer.Option(metavar="URI", help="Folder or bucket for votes, verdicts and corrections.")],
    database: DatabaseOption = None,
    weighted: Annotated[
        bool, typer.Option("--weighted", help="Verdicts weighted by each reviewer's record on known answers.")
    ] = False,
    label_studio: Annotated[bool, typer.Option("--label-studio", help="Label Studio's JSON and pictures too.")] = False,
) -> None:
    """Write the whole log of votes, and the verdict on each candidate."""
    from rasura.annotator.exchange.corrections_file import export_corrections
    from rasura.annotator.exchange.drawings_file import export_drawings
    from rasura.annotator.exchange.label_studio import export_label_studio
    from rasura.annotator.exchange.votes_file import export_votes
    from rasura.annotator.server.images import PictureReader
    from rasura.annotator.store.items import check_opened
    from rasura.manifests.storage import Store, is_remote

    with open_database(run, database, create=False) as review_database, review_database.read() as connection:
        check_opened(connection, run)
        result = export_votes(connection, Store(out), weighted)
        corrected = export_corrections(connection, Store(out))
        drawings, unnamed = export_drawings(connection, Store(out))
        if label_studio:
            if is_remote(out):
                message = f"'{out}' is no folder of this machine, where Label Studio's pictures are written"
                raise typer.BadParameter(message, param_hint="--out")
            count = export_label_studio(connection, Path(out), PictureReader(Store(run)))
            echo(f"{out}/label-studio.json: {format_count(count, 'task')}")
    entries, items = format_count(result.entries, "entry of the log"), format_count(result.verdicts, "item")
    masks = f", {format_count(corrected, 'mask')} corrected" if corrected else ""
    grounds = f", {format_count(drawings, 'drawing')} of the ground" if drawings else ""
    echo(f"{out}: {entries}, {items} with a verdict{masks}{grounds}")
    for origin in unnamed:
        echo_line(f"no file can have the name of the drawing of {origin}: rename the photograph")


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
