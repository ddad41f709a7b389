"""Features for a log that has only texts: the vectors of its contexts and actions, in few directions of both.

Vectors of texts are computed once and kept in the table ``vectors``, so a run that was stopped goes on where it was.
The workspace is open while something is read or committed, never while the embedder works.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt

from counterplay.errors import InputError
from counterplay.llm.actions.nearest import most_similar, most_similar_among
from counterplay.llm.opening import opened_for_writing
from counterplay.llm.vectors.directions import Directions, common_directions, second_moments
from counterplay.llm.vectors.embedders import Embedder, identify_embedder, load_embedder
from counterplay.llm.vectors.embedding import EMBEDDER, embed, store_vectors, stored_name, unknown_keys, vector_keys
from counterplay.llm.vectors.log_texts import (
    LogTexts,
    check_texts,
    other_features,
    read_candidates,
    read_texts_of,
    store_features,
)
from counterplay.logs import Workspace, write_choices
from counterplay.logs.progress import Progress
from counterplay.logs.reading import Place
from counterplay.logs.workspace import borrowed

Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

DIMENSIONS = 50
"""As many as the paper keeps of its action vectors (Chen, Zhang and Zhu, EMNLP 2024)."""

PRIOR = "embedding-prior"
"""The policy that plays the action whose text is most similar to the context's."""

CHUNK, STEP = 4096, 512
"""Texts between two commits, and between two signs of progress."""


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """What embedding a log did.

    ``texts``: different ones, of which ``computed`` were new and ``longer`` are longer than the ``limit`` of word
    pieces that the embedder reads (None: it has none), so that their vectors are those of their beginnings.
    ``without_text``: contexts that have none, ``unknown``: contexts and actions of whose texts the embedder knows no
    word; the features of all these are 0. ``width``: dimensions of the embedder; ``dimensions``: those of the
    features, which keep the shares ``contexts_kept`` and ``actions_kept`` of squared length. ``actions``: how many have
    features, 0 where none has a text. ``stored``: false where the log had these features already. ``prior``: whether
    the policy ``embedding-prior`` was stored.
    """

    log: str
    embedder: str
    contexts: int
    actions: int
    without_text: int
    unknown: int
    texts: int
    computed: int
    longer: int
    limit: int | None
    width: int
    dimensions: int
    contexts_kept: float
    actions_kept: float
    stored: bool
    prior: bool

    def __str__(self) -> str:
        lines = [
            f"'{self.log}' by {self.embedder}: {self.texts:,} texts, {self.texts - self.computed:,} with vectors "
            f"already, {self.computed:,} embedded.",
            f"{'Stored' if self.stored else 'There already'}: features of {self.contexts:,} contexts and "
            f"{self.actions:,} actions, {self.dimensions} of {self.width} dimensions, which keep "
            f"{self.contexts_kept:.1%} of the contexts' squared length"
            + (f" and {self.actions_kept:.1%} of the actions'." if self.actions else "."),
        ]
        if self.prior:
            lines.append(f"Policy '{PRIOR}': the action most similar to each context.")
        if not self.actions:
            lines.append("No action has a text: only models that need no features of actions can use the log.")
        if self.without_text:
            lines.append(f"{self.without_text:,} contexts have no text; their features are 0.")
        if self.unknown:
            lines.append(
                f"Of {self.unknown:,} texts of contexts and actions the embedder knows no word; their features are 0."
            )
        if self.longer:
            lines.append(
                f"{self.longer:,} texts are longer than the {self.limit} word pieces that the embedder reads; their "
                "vectors are those of their beginnings."
            )
        return "\n".join(lines)


def embed_log(
    workspace: Place,
    log: str,
    *,
    embedder: str = EMBEDDER,
    dimensions: int = DIMENSIONS,
    replace: bool = False,
    progress: Progress | None = None,
) -> EmbedReport:
    """Give a log features: the vectors of its texts, in ``dimensions`` directions that contexts and actions share.

    A context's features are the coordinates of its vector (unit length) in these directions, and so are an action's:
    inner products of the two stay, as far as ``dimensions`` allow, the cosines of the texts (see `directions`). Also
    stored, unless the log has one and ``replace`` is false, is the policy ``embedding-prior``: for each context the
    action of highest cosine among its candidates, by the whole vectors. Where no action has a text, only contexts get
    features. A context without a text (it was forgotten, say) has features of 0 and no choice.

    Parameters
    ----------
    workspace: the path of a workspace, open while something is read or stored; or an open one.
    log: the log.
    embedder: a folder that sentence-transformers or model2vec has saved, or ``package:NAME``.
    dimensions: of the features, at most those of the embedder; that many keep the vectors whole, turned.
    replace: put the features in the place of those that the log has; and the policy ``embedding-prior``, too.
    progress: called with (done, total, what).

    Memory: contexts x dimensions x 4 bytes, beside the texts. Errors: `InputError` for an unknown log, one without
    texts, with an empty text, or with other features; `UnsupportedError` for an attached log; those of
    `load_embedder`.
    """
    if dimensions < 1:
        raise InputError(f"dimensions is {dimensions}; at least 1 is needed.")
    tell = progress or _silent
    with borrowed(workspace) as opened:
        found = read_texts_of(opened, log)
    check_texts(log, found, replace)
    texts = list(dict.fromkeys(text for text in (*found.actions, *found.contexts) if text is not None))
    missing = _missing(workspace, texts, embedder)
    if missing and found.has_features and not replace:
        raise other_features(log, found)
    loaded = load_embedder(embedder)
    name = stored_name(embedder, identify_embedder(embedder))
    _compute(workspace, name, missing, loaded, tell)
    tell(len(texts), len(texts), "storing features")
    with opened_for_writing(workspace) as opened, opened.transaction():
        made = _make(opened, log, found, embedder, dimensions)
        stored = store_features(opened.connection, log, found, made.contexts, made.actions, replace)
        prior = stored and _store_prior(opened, log, made.prior, replace)
    return EmbedReport(
        log=log,
        embedder=name,
        contexts=len(found.contexts),
        actions=0 if made.actions is None else len(made.actions),
        without_text=found.contexts.count(None),
        unknown=made.unknown,
        texts=len(texts),
        computed=len(missing),
        longer=loaded.count_longer(texts),
        limit=loaded.limit,
        width=made.directions.basis.shape[0],
        dimensions=made.directions.basis.shape[1],
        contexts_kept=made.directions.contexts,
        actions_kept=made.directions.actions,
        stored=stored,
        prior=prior,
    )


def _missing(workspace: Place, texts: Sequence[str], embedder: str) -> dict[str, str]:
    """The texts without a vector, by key."""
    keys = vector_keys(identify_embedder(embedder), texts)
    with borrowed(workspace) as opened:
        unknown = unknown_keys(opened.connection, keys)
    return {key: text for key, text in zip(keys, texts, strict=True) if key in unknown}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Made:
    contexts: Singles
    actions: Singles | None
    directions: Directions
    prior: Ints | None
    unknown: int


def _compute(workspace: Place, name: str, missing: dict[str, str], loaded: Embedder, tell: Progress) -> None:
    """Compute vectors and commit them chunk by chunk; what was committed is never lost."""
    keys = list(missing)
    for start in range(0, len(keys), CHUNK):
        chunk, parts = keys[start : start + CHUNK], []
        for begin in range(0, len(chunk), STEP):
            tell(start + begin, len(keys), "embedding texts")
            parts.append(loaded.encode([missing[key] for key in chunk[begin : begin + STEP]]))
        with opened_for_writing(workspace) as opened, opened.transaction() as connection:
            store_vectors(connection, name, chunk, np.concatenate(parts))


def _make(opened: Workspace, log: str, found: LogTexts, embedder: str, dimensions: int) -> _Made:
    """Features from the vectors that are stored; the contexts go by in blocks, twice."""
    if read_texts_of(opened, log) != found:
        raise InputError(f"Log '{log}' was changed while it was embedded; its features were left alone. Run it again.")
    texts = [text for text in found.actions if text is not None]
    first = next(text for text in found.contexts if text is not None)
    actions = embed([first, *texts], embedder=embedder, connection=opened.connection)[1:]
    width = actions.shape[1]

    def blocks() -> Iterator[Singles]:
        for start in range(0, len(found.contexts), CHUNK):
            yield _vectors(opened.connection, found.contexts[start : start + CHUNK], embedder, width)

    directions = common_directions(second_moments(blocks(), width), second_moments([actions], width), dimensions)
    reduced = np.empty((len(found.contexts), directions.basis.shape[1]), dtype=np.float32)
    prior = np.full(len(found.contexts), -1, dtype=np.int32)
    unknown = _zeros(actions) - found.contexts.count(None)
    lists = read_candidates(opened.connection, log) if texts else None
    for number, block in enumerate(blocks()):
        mine = slice(number * CHUNK, number * CHUNK + len(block))
        reduced[mine] = directions.of_contexts(block)
        unknown += _zeros(block)
        if texts:
            prior[mine] = _nearest(block, actions, None if lists is None else lists[mine])
    return _Made(
        contexts=reduced,
        actions=directions.of_actions(actions) if texts else None,
        directions=directions,
        prior=prior if texts else None,
        unknown=unknown,
    )


def _zeros(vectors: Singles) -> int:
    return int(np.sum(~vectors.any(axis=1)))


def _vectors(connection: duckdb.DuckDBPyConnection, texts: Sequence[str | None], embedder: str, width: int) -> Singles:
    """Vectors of texts ``(n, width)``, 0 where there is none."""
    rows = np.zeros((len(texts), width), dtype=np.float32)
    there = [text for text in texts if text is not None]
    if there:
        rows[[text is not None for text in texts]] = embed(there, embedder=embedder, connection=connection)
    return rows


def _nearest(contexts: Singles, actions: Singles, lists: Ints | None) -> Ints:
    """The most similar action of each context, among its candidates where there are lists; -1 for a vector of 0."""
    if lists is None:
        chosen = most_similar(contexts, actions).actions[:, 0]
    else:
        rows = np.arange(len(contexts))
        chosen = most_similar_among(contexts, actions, lists, text=rows, row=rows).actions[:, 0]
    return np.where(contexts.any(axis=1), chosen, np.int32(-1))


def _store_prior(opened: Workspace, log: str, prior: Ints | None, replace: bool) -> bool:
    query = "SELECT 1 FROM choices WHERE log = ? AND policy = ? LIMIT 1"
    there = bool(opened.connection.execute(query, [log, PRIOR]).fetchall())
    if prior is None or (there and not replace):
        return False
    write_choices(opened, log, PRIOR, prior)
    return True


def _silent(done: int, total: int, what: str) -> None:
    """No progress is shown."""
    del done, total, what
