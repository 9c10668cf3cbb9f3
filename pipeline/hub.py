"""Exports to the Hugging Face Hub: written to this machine, and pushed as one commit by `huggingface_hub`.

Its client finds the token where it always does (`HF_TOKEN`, or what `hf auth login` keeps); no place names one.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasura.manifests.errors import RasuraError
from rasura.manifests.formats.target import check_target
from rasura.manifests.remote_files import check_name
from rasura.manifests.storage import Store, StoreError
from rasura.pipeline.export import ExportOptions, OnProgress, export_run

SCHEME = "hf://"
FORM = "hf://datasets/OWNER/NAME, with @REVISION and /FOLDER behind it where they are needed"
_PLACE = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/(.+?))?/?")


@dataclass(frozen=True)
class HubPlace:
    """A folder of a dataset's repository.

    Attributes:
        repo: OWNER/NAME.
        revision: branch; None for the main one.
        folder: in it, "" for the whole.
    """

    repo: str
    revision: str | None
    folder: str

    def __str__(self) -> str:
        revision, folder = f"@{self.revision}" if self.revision else "", f"/{self.folder}" if self.folder else ""
        return f"{SCHEME}datasets/{self.repo}{revision}{folder}"


def parse_hub_uri(uri: str) -> HubPlace:
    """Parse the address of a dataset on the Hub.

    Raises:
        StoreError: it has another form. The text does not repeat it: somebody may have put a token into it.

    Examples:
        >>> parse_hub_uri("hf://datasets/ann/rooms@v2/demo")
        HubPlace(repo='ann/rooms', revision='v2', folder='demo')
        >>> parse_hub_uri("hf://ann:hf_secret@datasets/rooms")
        Traceback (most recent call last):
        rasura.manifests.remote_files.StoreError: an address on the Hub has the form hf://datasets/OWNER/NAME, with \
@REVISION and /FOLDER behind it where they are needed; a token is taken from HF_TOKEN or `hf auth login`
    """
    if not (match := _PLACE.fullmatch(uri)):
        raise StoreError(
            f"an address on the Hub has the form {FORM}; a token is taken from HF_TOKEN or `hf auth login`"
        )
    repo, revision, folder = match.groups()
    if folder:
        check_name(folder)
    return HubPlace(repo, revision, folder or "")


def export_anywhere(
    store: Store,
    out: str,
    layout: str = "huggingface",
    flows: str | Sequence[str] = (),
    on_progress: OnProgress = lambda done, total, note: None,
    options: ExportOptions | None = None,
) -> dict[str, Any]:
    """Write a run's dataset to a folder, a bucket, or the Hub, as `pipeline.export.export_run` does.

    A repository that is not there is created, as a private one. What an earlier export has there is replaced by one
    commit; a repository with files of something else is refused.

    Raises:
        StoreError: the target cannot be written, or the token does not allow it.
    """
    if not out.startswith(SCHEME):
        return export_run(store, Store(out), layout, flows, on_progress, options)
    place = parse_hub_uri(out)
    from huggingface_hub import HfApi

    api = HfApi()
    with tempfile.TemporaryDirectory() as folder:
        with _explain_refusals(place):
            api.create_repo(place.repo, repo_type="dataset", private=True, exist_ok=True)
            if place.revision:
                api.create_branch(place.repo, branch=place.revision, repo_type="dataset", exist_ok=True)
        manifest = export_run(store, Store(folder), layout, flows, on_progress, options)
        _push(api, Path(folder), place, f"{manifest['name']}: {manifest['rows']} rows as {layout}")
    return manifest


def _push(api: Any, folder: Path, place: HubPlace, message: str) -> None:
    """Push a folder as one commit, which deletes the files that only an earlier export has."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    prefix = f"{place.folder}/" if place.folder else ""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    with _explain_refusals(place):
        stale = check_target(Store(str(place)), files) - files.keys()
        operations: list[Any] = [CommitOperationAdd(prefix + name, path) for name, path in files.items()]
        operations += [CommitOperationDelete(prefix + name) for name in sorted(stale)]
        api.create_commit(place.repo, operations, commit_message=message, repo_type="dataset", revision=place.revision)


@contextmanager
def _explain_refusals(place: HubPlace) -> Iterator[None]:
    """Turn what the Hub answers into a sentence.

    Raises:
        StoreError: the Hub refused, or cannot be reached.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError  # type: ignore[attr-defined]

    try:
        yield
    except RasuraError:
        raise
    except LocalTokenNotFoundError:
        raise StoreError(f"cannot push to '{place}': no token; set HF_TOKEN, or run `hf auth login`") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        reason = error.server_message or f"it answered with status {status}"
        remedy = (
            "; set HF_TOKEN to a token that may write there, or run `hf auth login`" if status in (401, 403) else ""
        )
        raise StoreError(f"cannot push to '{place}': {reason}{remedy}") from None
    except (HTTPError, OSError) as error:
        raise StoreError(f"cannot push to '{place}': {type(error).__name__}: {error}") from error
