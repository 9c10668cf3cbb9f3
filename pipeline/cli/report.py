"""`rasura report RUN --serve`. Nothing heavy is imported before it is needed."""

import contextlib

import typer

from rasura.pipeline.cli.output import echo


def serve_report(run: str, host: str, port: int, public_url: str | None) -> None:
    """Serve the page of a run until the process is stopped.

    Args:
        run: its folder or URI.
        host: address to bind. port: 0 for a free one.
        public_url: address that a browser takes, where that is another one.

    Raises:
        NoRun: there is no run.
        BadAddress: nothing can be served at the address.
    """
    from rasura.annotator.server.address import EVERY_ADDRESS, bind_socket, format_url, parse_public_url
    from rasura.annotator.server.app import serve_app
    from rasura.annotator.server.middleware import LOOPBACK, parse_host
    from rasura.manifests.run_layout import LOOP
    from rasura.manifests.storage import Store
    from rasura.pipeline.report.server import ServedReport, create_report_app

    store = Store(run)
    if store.exists(LOOP):
        raise typer.BadParameter(
            f"'{run}' is a loop: serve one of its rounds, {run}/rounds/01, or write the page without --serve",
            param_hint="RUN",
        )
    public_url = parse_public_url(public_url) if public_url else None
    with contextlib.closing(bind_socket(host, port)) as bound:
        report = ServedReport(store)
        own_url = format_url(host, bound.getsockname()[1])
        names = [url.partition("://")[2] for url in (own_url, public_url) if url]
        hosts = (*LOOPBACK, *map(parse_host, names))
        app = create_report_app(report, hosts, public_url)
        echo(f"report: {public_url or own_url}/#token={report.token}")
        if host in EVERY_ADDRESS and not public_url:
            echo("only this machine can open it: name with --public-url the address that a browser takes")
        if not serve_app(app, bound, ["127.0.0.1", "::1"] if public_url else []):
            raise typer.Exit(1)
