"""push(): a checkpoint, or what a plan makes of one, to the Hub, in one commit."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from recast.errors import HubError
from recast.execution.converter import convert
from recast.execution.reader import inspect
from recast.execution.shard import Effort, Progress
from recast.execution.workers import chosen_workers
from recast.formats.checkpoint import Checkpoint
from recast.formats.hub_path import HubFile, HubPath
from recast.hub import Hub, RejectedError, Sent
from recast.planning.plan import Plan
from recast.planning.publication import MAIN, Destination, Publication, check_wish
from recast.remote import stream
from recast.remote.destination import SameAs, expect, holds, holds_text, look_up, publication
from recast.remote.repository import Repository
from recast.reports.conversion import Conversion
from recast.reports.publication import Pushed, commit_message

Source = str | os.PathLike[str] | Checkpoint | Plan | Conversion


def plan_push(
    source: Source,
    repo_id: str | None = None,
    *,
    public: bool = False,
    pr: bool | None = None,
    revision: str | None = None,
) -> Publication:
    """Return what `push` would do, without doing it. It needs no token to ask about others' models.

    Args:
        source: as for `push`.
        repo_id: as for `push`.
        public: as for `push`.
        pr: as for `push`.
        revision: as for `push`.

    Raises:
        RecastError: what `inspect` raises; HubError if the Hub cannot be reached, or does not
            let the user see the repository; RefusedError if the wish cannot be had.

    Example:
        >>> recast.plan_push("./ckpt-bf16", "me/ckpt").replaced  # bytes  # doctest: +SKIP
        {'model.safetensors': 269060552, 'config.json': 712}
    """
    source = _read(source)
    hub = Hub()
    repo = repo_id or _default_name(source)
    destination = look_up(hub, repo, public=public, pr=pr, revision=revision)
    check_wish(destination, public=public)
    if isinstance(source, Plan):
        return _of_plan(hub, source, destination)
    return _of_folder(_published(source), destination)


def push(
    source: Source,
    repo_id: str | None = None,
    *,
    public: bool = False,
    pr: bool | None = None,
    revision: str | None = None,
    parent: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Publish *source* on the Hub in one commit, and return its URL, or its pull request's.

    Weights are uploaded first; then one commit adds and replaces files, and deletes the weights
    that these replace under other names: a reader never sees a model that is half replaced. If
    all is there already, nothing is committed. What was interrupted goes on when called again.

    A plan for a checkpoint on the Hub is carried out shard by shard: each is fetched, converted,
    uploaded and removed, so that the disk never holds more than two.

    Args:
        source: a folder; what `inspect`, `plan` or `convert` returned.
        repo_id: ``org/name``; the name of the source's folder, under the user, if left out.
        public: whether a repository that has to be made can be seen by everybody.
        pr: whether to open a pull request, or update recast's own that is still open; by
            default, for repositories in which the user may not write.
        revision: the branch to commit to; it is made if it is not there.
        parent: the commit that *revision* must still be at.
        workers: the threads to convert with; by default the CPUs this process may use.
        progress: called now and then with the bytes of the source that were done since.

    Raises:
        RecastError: what `inspect` and `convert` raise; HubError if there is no token or it does
            not suffice, if somebody else has committed meanwhile, or if the Hub fails.

    Example:
        >>> recast.push("./ckpt-bf16", "me/ckpt")  # doctest: +SKIP
        'https://huggingface.co/me/ckpt/commit/5f2d…'
    """
    source = _read(source)
    repo = repo_id or _default_name(source)
    hub = Hub()
    need_account(repo, known=hub.account() is not None)  # before the work of hours
    if isinstance(source, Plan) and isinstance(source.checkpoint.path, Path):
        source = convert(source, workers=workers, progress=progress)
    destination = look_up(hub, repo, public=public, pr=pr, revision=revision)
    check_wish(destination, public=public)
    expect(destination, parent)
    destination = _made(hub, destination)
    try:
        if isinstance(source, Plan):
            effort = Effort(chosen_workers(workers), evidence=True, progress=progress)
            return _push_plan(hub, source, destination, effort)
        return _push_folder(hub, source, destination)
    except RejectedError as error:  # of which only the workplace has to know
        raise HubError(destination.repo, error.problem, error.remedy) from error


def need_account(repo: str, *, known: bool) -> None:
    """Raise HubError unless it is known who wants to push to *repo*."""
    if not known:
        raise HubError(
            repo,
            "pushing needs a token, and there is none",
            "log in with `hf auth login`, or set HF_TOKEN",
        )


def _read(source: Source) -> Checkpoint | Plan | Conversion:
    """Return *source*, or the checkpoint that lies there."""
    return source if isinstance(source, Checkpoint | Plan | Conversion) else inspect(source)


def _default_name(source: Checkpoint | Plan | Conversion) -> str:
    """Return the name under which transformers' trainer would publish the source's folder."""
    if isinstance(source, Conversion):
        source = source.plan
    checkpoint = source.checkpoint if isinstance(source, Plan) else source
    path = checkpoint.path
    if isinstance(path, HubPath):
        return path.name
    return path.absolute().stem if checkpoint.is_file else path.resolve().name


def _published(source: Checkpoint | Conversion) -> Checkpoint:
    """Return the checkpoint, on this machine, that *source* is or has made."""
    if isinstance(source, Checkpoint):
        return source
    return source.plan.checkpoint if source.target is None else inspect(str(source.target))


def _made(hub: Hub, destination: Destination) -> Destination:
    """Make the repository, and the branch, unless they are there."""
    repo, revision = destination.repo, destination.revision
    if not destination.exists:
        hub.create(repo, private=destination.private)
    elif destination.has_revision:
        return destination
    if revision != MAIN or destination.exists:  # a new repository has its main
        hub.create_branch(repo, revision)
    pr = destination.request
    return replace(
        look_up(hub, repo, public=False, pr=pr, revision=revision), private=destination.private
    )


def _of_folder(checkpoint: Checkpoint, destination: Destination) -> Publication:
    """Return what publishing a checkpoint on this machine does."""
    sizes = {file.name: file.size for file in checkpoint.all_files}
    return publication(
        destination, sizes, lambda name, file: holds(checkpoint.place_of(name), file)
    )


def _of_plan(
    hub: Hub, plan: Plan, destination: Destination, sent: Mapping[str, Sent] | None = None
) -> Publication:
    """Return what publishing the outcome of *plan* does, as far as that is known before."""
    texts = {document.name: document.text for document in plan.documents}
    changed = {shard.name for shard in plan.shards if shard.changes}
    is_same_copy = _same_copy(hub, plan)

    def is_same(name: str, file: HubFile) -> bool:
        if sent is not None and name in sent:
            return sent[name].sha256 == file.sha256
        if name in texts:
            return holds_text(texts[name], file)
        return name not in changed and is_same_copy(name, file)

    return publication(destination, {file.name: file.size for file in plan.files}, is_same)


def _same_copy(hub: Hub, plan: Plan) -> SameAs:
    """Return what tells whether a file that stays as it is has the content of another."""
    path = plan.checkpoint.path
    if isinstance(path, HubPath):
        entries = Repository(hub, path).entries
        return lambda name, file: entries[name].digest == file.digest
    return lambda name, file: holds(plan.checkpoint.place_of(name), file)


def _push_folder(hub: Hub, source: Checkpoint | Conversion, destination: Destination) -> Pushed:
    """Publish a checkpoint that lies on this machine."""
    checkpoint = _published(source)
    conversion = source if isinstance(source, Conversion) else None
    made = _of_folder(checkpoint, destination)
    sent: list[Sent] = []
    small: dict[str, Path | bytes] = {}
    for name in (*made.added, *made.replaced):
        path = checkpoint.place_of(name)
        done = _send(hub, name, path, destination)
        if done is None:
            small[name] = path
        else:
            sent.append(done)
    original = checkpoint if conversion is None else conversion.plan.checkpoint
    url = _commit(hub, made, small, sent, commit_message(original, conversion, made))
    return Pushed.of(url, made, conversion)


def _push_plan(hub: Hub, plan: Plan, destination: Destination, effort: Effort) -> Pushed:
    """Carry out a plan for a checkpoint on the Hub, shard by shard, and publish the outcome."""
    before = _of_plan(hub, plan, destination)
    with stream.to_hub(
        plan,
        destination.repo,
        frozenset(before.sent),
        lambda name, path: _send(hub, name, path, destination),
        effort,
    ) as outcome:
        made = _of_plan(hub, plan, destination, outcome.sent)
        files = {name: path for name, path in outcome.small.items() if name in made.sent}
        small: dict[str, Path | bytes] = dict(files)
        for document in plan.documents:
            if document.name in made.sent:
                small[document.name] = document.text.encode()
        sent = [each for each in outcome.sent.values() if each.name in made.sent]
        target = HubPath(destination.repo, None if destination.request else destination.revision)
        if destination.revision == MAIN:
            target = HubPath(destination.repo)
        conversion = Conversion(
            plan, target, outcome.shards, outcome.seconds, outcome.resumed, outcome.discarded
        )
        message = commit_message(plan.checkpoint, conversion, made)
        url = _commit(hub, made, small, sent, message)
    return Pushed.of(url, made, conversion)


def _send(hub: Hub, name: str, path: Path, destination: Destination) -> Sent | None:
    """Upload one file; None if it goes with the commit."""
    opens = destination.request and destination.request_number is None
    return hub.send(destination.repo, name, path, destination.revision, request=opens)


def _commit(
    hub: Hub,
    made: Publication,
    small: Mapping[str, Path | bytes],
    sent: list[Sent],
    message: tuple[str, str],
) -> str:
    """Make the commit, unless it would change nothing, and return its URL."""
    where = made.destination
    if not made.changes:
        return hub.url(where.repo, where.parent or where.revision)
    url = hub.commit(
        where.repo,
        small,
        sent,
        made.deleted,
        message,
        revision=where.revision,
        parent=where.parent,
        request=where.request and where.request_number is None,
    )
    if where.request_number is not None:
        return hub.request_url(where.repo, where.request_number)
    return url
