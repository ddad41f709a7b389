"""Some decisions of a log to be replayed, under the positions that they have in the whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import UnsupportedError
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.randomness import Purpose, uniforms

Rows = NDArray[np.int64]


class Portion(PreparedLog):
    """Some decisions of a prepared log. It shares with the whole what agents see of it, and nothing is copied; each
    decision keeps its position, and with it its luck. Orders and luck are kept as long as the portion is.

    Args:
        whole: the log.
        rows: `(n',)` positions of the decisions, each once.
    """

    def __init__(self, whole: PreparedLog, rows: Rows) -> None:
        super().__init__(whole.log, whole._choices)
        self._tables, self._features = whole._tables, whole._features
        vars(self)["_shared"] = whole._shared
        self.rows = np.sort(rows)
        self._kept = np.zeros(len(whole.log.context), bool)
        self._kept[rows] = True

    def order(self, seed: int, shuffle: bool) -> Rows:
        """The order in which a seed meets the decisions of the portion `(n',)`: that of the whole, without the rest."""
        whole = super().order(seed, shuffle)
        return whole[self._kept[whole]]


def first_clusters(cluster: NDArray[np.int64], share: float, log: str, seed: int | None) -> Rows:
    """The decisions of a share of the clusters, whole ones: the first clusters that the log meets, or, with a seed,
    clusters in a random order.

    Args:
        cluster: `(n,)` what each decision belongs to.
        share: of the clusters, at least one of them and never all.
        log: its name, for the message.

    Raises:
        UnsupportedError: there is one cluster only.
    """
    _, first, inverse = np.unique(cluster, return_index=True, return_inverse=True)
    count = len(first)
    if count < 2:
        raise UnsupportedError(f"log '{log}' has {count} cluster, which cannot be divided: two or more are needed.")
    key = first if seed is None else uniforms(seed, Purpose.ORDER, count)
    chosen = np.zeros(count, bool)
    chosen[np.argsort(key, kind="stable")[: clusters_in(count, share)]] = True
    return np.flatnonzero(chosen[inverse.reshape(-1)])


def clusters_in(count: int, share: float) -> int:
    """How many clusters a share of ``count`` is: at least one, and never all."""
    return min(count - 1, max(1, round(share * count)))
