"""The demo's shipped data: features, shortlists and the language model's outputs for 36,343 contexts.

The texts come from the classification (extra ``demo``); what was computed from them is shipped in ``demo/data`` and
made by ``counterplay.demo.make_data``. Three proofs tie the two together: a hash of codes and texts says that the
classification is the one the data were computed from; each output's request is built again from template, text and
shortlist; and its key must begin with the 16 bytes that were shipped with the output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from counterplay.demo.task import Triage, load_triage
from counterplay.errors import FileError

if TYPE_CHECKING:
    import duckdb

    from counterplay.llm.prompting.requests import Request

CONTEXTS_FILE, ACTIONS_FILE, PROVENANCE_FILE = "contexts.parquet", "actions.parquet", "provenance.json"
KEY_BYTES = 16

Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class DemoData:
    """n contexts (36,343 leaf codes), K actions (285 blocks), the order of both fixed (``counterplay.demo.task``).

    ``features (n, 64)`` and ``action_features (K, 64)``: MiniLM vectors in one basis, so that their inner product
    approximates the cosine of the texts. ``labels (n,)``: the right action. ``shortlist (n, 10)``: the nearest actions
    by full MiniLM cosine, nearest first. ``llm_scores (n, 5)``: the model's log-likelihood, in nats, for the first five
    of the shortlist; NaN where there is no output. ``key_heads (n, 16)``: first bytes of the key of each output.
    """

    context_ids: tuple[str, ...]
    texts: tuple[str, ...]
    features: Singles
    labels: Ints
    action_labels: tuple[str, ...]
    action_texts: tuple[str, ...]
    action_features: Singles
    shortlist: Ints
    llm_scores: Singles
    key_heads: npt.NDArray[np.uint8]
    provenance: dict[str, Any]

    @cached_property
    def requests(self) -> tuple[Request, ...]:
        """The request behind each row of ``llm_scores``, built again; takes some seconds and 150 MB."""
        return tuple(self.request(row) for row in range(len(self.context_ids)))

    def request(self, row: int) -> Request:
        """The request behind one row of ``llm_scores``."""
        from counterplay.llm.models import ModelIdentity
        from counterplay.llm.prompting.requests import Prompting, ranking_request
        from counterplay.llm.prompting.templates import Template

        made = self.provenance["outputs"]
        template = Template(name=made["template_name"], source=made["template"])
        asked = self.shortlist[row, : self.llm_scores.shape[1]]
        texts = [self.action_texts[action] for action in asked]
        return ranking_request(ModelIdentity(**made["identity"]), Prompting(template=template), self.texts[row], texts)


def load_demo() -> DemoData:
    """Read the shipped data and the texts they belong to; about two seconds, without torch.

    Errors: `MissingExtraError` without the extra ``demo``; `FileError` when the installed classification is not the
    release that the data were computed from.
    """
    triage = load_triage()
    provenance = json.loads(files("counterplay.demo").joinpath("data", PROVENANCE_FILE).read_text(encoding="utf-8"))
    if task_hash(triage) != provenance["task"]["sha256"]:
        raise FileError(
            "The installed classification has other codes or texts than the demo's data were computed from. "
            f"Install that release: pip install '{provenance['task']['requirement']}'"
        )
    contexts, actions = _read(CONTEXTS_FILE), _read(ACTIONS_FILE)
    scale = np.asarray(provenance["features"]["scale"], dtype=np.float32)
    return DemoData(
        context_ids=triage.context_ids,
        texts=triage.texts,
        features=_matrix(contexts["features"], np.int8).astype(np.float32) * scale,
        labels=np.asarray(triage.labels, dtype=np.int32),
        action_labels=triage.action_labels,
        action_texts=triage.action_texts,
        action_features=_matrix(actions["features"], np.float32),
        shortlist=_matrix(contexts["shortlist"], np.int16).astype(np.int32),
        llm_scores=_matrix(contexts["scores"], np.float32),
        key_heads=np.frombuffer(b"".join(contexts["key"].to_pylist()), dtype=np.uint8).reshape(-1, KEY_BYTES),
        provenance=provenance,
    )


def llm_choice(demo: DemoData) -> Ints:
    """The language model policy's action in each context, ``(n,)``: the highest score, ties to the lowest action.

    -1 where the model has no output.
    """
    asked = demo.shortlist[:, : demo.llm_scores.shape[1]]
    best = np.max(demo.llm_scores, axis=1, keepdims=True)
    lowest = np.where(demo.llm_scores == best, asked, np.iinfo(np.int32).max).min(axis=1)
    return np.where(np.isnan(best[:, 0]), -1, lowest).astype(np.int32)


def check_keys(demo: DemoData, rows: Sequence[int] | None = None) -> int:
    """Build the requests again and compare their keys with the shipped ones; how many were compared (None: all).

    Errors: `FileError` naming the first output that does not belong to its request.
    """
    return sum(1 for _ in _checked(demo, rows))


def store_outputs(connection: duckdb.DuckDBPyConnection, demo: DemoData, rows: Sequence[int] | None = None) -> int:
    """Put the shipped outputs (None: all, about ten seconds) into the cache of a workspace; how many were new.

    Each key is checked on the way, so nothing is stored that does not belong to its request.
    """
    from counterplay.logs.outputs import Output, put_outputs

    provenance = demo.provenance["outputs"]["provenance"]
    return put_outputs(
        connection,
        (
            Output(
                request=request,
                response={"logprobs": [float(score) for score in demo.llm_scores[row]]},
                provenance=provenance,
            )
            for row, request in _checked(demo, rows)
        ),
    )


def task_hash(triage: Triage) -> str:
    """SHA-256 over everything of the task that the data depend on: codes, texts, their order, and the labels."""
    digest = hashlib.sha256()
    for part in (
        triage.context_ids,
        triage.texts,
        triage.action_labels,
        triage.action_texts,
        [str(label) for label in triage.labels],
    ):
        digest.update(json.dumps(list(part)).encode())
    return digest.hexdigest()


def _checked(demo: DemoData, rows: Sequence[int] | None) -> Iterator[tuple[int, Request]]:
    """Rows that have an output, each with its request, whose key has been compared."""
    from counterplay.logs.outputs import request_key

    for row in range(len(demo.texts)) if rows is None else rows:
        if np.isnan(demo.llm_scores[row]).any():
            continue
        request = demo.request(row)
        if bytes.fromhex(request_key(request))[:KEY_BYTES] != demo.key_heads[row].tobytes():
            raise FileError(
                f"The shipped output of {demo.context_ids[row]} was made by another request than the one that its "
                "template, text and shortlist give. Reinstall counterplay, or make the data again."
            )
        yield row, request


def _read(name: str) -> Any:
    import pyarrow.parquet as pq

    with as_file(files("counterplay.demo").joinpath("data", name)) as path:
        return pq.read_table(path)


def _matrix(column: Any, kind: Any) -> npt.NDArray[Any]:
    """A column of lists of equal length as a matrix."""
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=kind).reshape(len(column), -1)
