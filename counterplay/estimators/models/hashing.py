"""Words, categories and numbers as columns of a fixed width, by a hash that is the same everywhere and always.

    the hash of a category or token = splitmix64(FNV-1a-64 of the UTF-8 bytes of "name=text")
    of a number                     = splitmix64(FNV-1a-64 of "name"), with the number as its value
    of a cross of a and b           = splitmix64(splitmix64(a) + b), with the product of their values
    column                          = hash modulo width

FNV-1a-64 has offset basis 0xCBF29CE484222325 and prime 0x100000001B3 (Fowler, Noll & Vo); sums and products are modulo
2^64. Nothing is kept of the words, so unseen ones need no table, and shards need not agree on one (Weinberger et al.
2009). Two words that share a column share a coefficient: `TokenHashes.collisions` counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, EvidenceError, nearest
from counterplay.estimators.evidence import distinct
from counterplay.estimators.models.features import HashedFeatures, blocks
from counterplay.estimators.models.folds import Hashes, splitmix64

BASIS, PRIME, ALL_BITS = 0xCBF29CE484222325, 0x100000001B3, 0xFFFFFFFFFFFFFFFF

Words = Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Collisions:
    """Of `tokens` different tokens, `sharing` share their column with another; `expected` is that of a random hash."""

    tokens: int
    sharing: int
    expected: float


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenHashes:
    """Features not yet folded into a width: `hashes` (n, k) uint64 and `values` (n, k) float32, 0 where none."""

    hashes: Hashes
    values: npt.NDArray[np.float32]

    def features(self, width: int) -> HashedFeatures:
        """The same in `width` columns, 1 to 2^31 - 1."""
        if not 1 <= width < 2**31:
            raise ConfigurationError(f"width is {width}; it must lie between 1 and 2^31 - 1, for example 2**18.")
        indices = (self.hashes % np.uint64(width)).astype(np.int32)
        return HashedFeatures(indices=indices, values=self.values, width=width)

    def collisions(self, width: int) -> Collisions:
        """How many tokens of these rows share a column of `width` with another. Sorts all tokens: n k log(n k)."""
        different = distinct(self.hashes[self.values != 0])
        _, crowd = np.unique(different % np.uint64(width), return_counts=True)
        m = len(different)
        alone = (1 - 1 / width) ** (m - 1) if m else 1.0
        return Collisions(tokens=m, sharing=int(crowd[crowd > 1].sum()), expected=m * (1 - alone))


def hash_features(
    *,
    categories: Mapping[str, npt.ArrayLike] | None = None,
    tokens: Mapping[str, Words] | None = None,
    numbers: Mapping[str, npt.ArrayLike] | None = None,
    crosses: Sequence[Sequence[str]] = (),
    width: int = 2**18,
) -> HashedFeatures:
    """Columns of n rows as hashed features of `width` columns.

    Args:
        categories: by name, (n,) words, whole numbers or booleans; one feature of value 1 a row. Whole numbers are
            hashed as their decimal text, so 3 and "3" are the same category.
        tokens: by name, n lists of words (`[text.split() for text in texts]`); one feature of value 1 a word. Rows
            are padded to the longest.
        numbers: by name, (n,) finite numbers; one feature a row. Ridge needs them to be of about one size.
        crosses: names of two or more columns each; one feature for every combination of their features in a row. A
            linear model learns how the effect of an action depends on the context only from such crosses.
        width: columns to fold into. At most 2,048 for models with a gram matrix; 2^18 suits `CrossFittedAdaGrad`.

    Raises `EvidenceError` for columns of the wrong kind, naming them; `ConfigurationError` for names that are unknown
    or used twice. Memory: 8 bytes a row and feature, and three times that while they are made.
    """
    return hash_tokens(categories=categories, tokens=tokens, numbers=numbers, crosses=crosses).features(width)


def hash_tokens(
    *,
    categories: Mapping[str, npt.ArrayLike] | None = None,
    tokens: Mapping[str, Words] | None = None,
    numbers: Mapping[str, npt.ArrayLike] | None = None,
    crosses: Sequence[Sequence[str]] = (),
) -> TokenHashes:
    """As `hash_features`, before folding: to try widths and to count collisions."""
    kinds: tuple[tuple[Any, Any], ...] = ((categories, _category), (tokens, _tokens), (numbers, _number))
    columns: dict[str, TokenHashes] = {}
    for given, make in kinds:
        for name, column in (given or {}).items():
            if name in columns:
                raise ConfigurationError(f"Column '{name}' is given twice; names tell the features apart.")
            columns[name] = make(name, column)
    if not columns:
        raise ConfigurationError("No column was given: name some as categories, tokens or numbers.")
    for (one, ours), (other, theirs) in pairwise(columns.items()):
        if len(ours.hashes) != len(theirs.hashes):
            raise EvidenceError(
                f"Column '{one}' has {len(ours.hashes)} rows and '{other}' has {len(theirs.hashes)}; "
                "they describe the same rows."
            )
    parts = [*columns.values(), *(_cross(columns, names) for names in crosses)]
    return TokenHashes(
        hashes=np.hstack([part.hashes for part in parts]), values=np.hstack([part.values for part in parts])
    )


def _category(name: str, column: npt.ArrayLike) -> TokenHashes:
    hashes = _hashed(name, _words(name, column))
    return TokenHashes(hashes=hashes[:, None], values=np.ones((len(hashes), 1), np.float32))


def _number(name: str, column: npt.ArrayLike) -> TokenHashes:
    values = np.asarray(column)
    if values.dtype.kind not in "fiub" or values.ndim != 1:
        raise EvidenceError(f"Column '{name}' holds {values.dtype} of shape {values.shape}; (n,) numbers are needed.")
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(narrow))
    if len(bad):
        raise EvidenceError(
            f"Column '{name}' is {values[bad[0]]} at row {bad[0]} ({len(bad)} in all); finite numbers that fit float32 "
            "are needed: fill what is missing first."
        )
    hashes = splitmix64(np.full((len(values), 1), _fnv(name), np.uint64))
    return TokenHashes(hashes=hashes, values=narrow[:, None])


def _tokens(name: str, rows: Words) -> TokenHashes:
    if isinstance(rows, str) or any(issubclass(kind, str | bytes) for kind in set(map(type, rows))):
        raise EvidenceError(
            f"Column '{name}' holds texts; lists of words are needed: [text.split() for text in texts]."
        )
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    starts = np.cumsum(lengths) - lengths
    row = np.repeat(np.arange(len(rows)), lengths)
    place = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
    shape = (len(rows), int(lengths.max(initial=0)))
    hashes, values = np.zeros(shape, np.uint64), np.zeros(shape, np.float32)
    if len(row):
        hashes[row, place] = _hashed(name, _words(name, list(chain.from_iterable(rows))))
        values[row, place] = 1.0
    return TokenHashes(hashes=hashes, values=values)


def _cross(columns: Mapping[str, TokenHashes], names: Sequence[str]) -> TokenHashes:
    if isinstance(names, str) or len(names) < 2:
        raise ConfigurationError(
            f"A cross needs two or more columns, for example ('action', 'country'); not {names!r}."
        )
    for name in names:
        if name not in columns:
            raise ConfigurationError(f"A cross names '{name}', which is no column. {nearest(name, columns)}")
    crossed = columns[names[0]]
    for name in names[1:]:
        ours, theirs, rows = crossed, columns[name], len(crossed.hashes)
        mixed = splitmix64(splitmix64(ours.hashes)[:, :, None] + theirs.hashes[:, None, :])
        values = ours.values[:, :, None] * theirs.values[:, None, :]
        crossed = TokenHashes(hashes=mixed.reshape(rows, -1), values=values.reshape(rows, -1))
    return crossed


def _words(name: str, column: npt.ArrayLike) -> npt.NDArray[Any]:
    """(n,) text, from words, whole numbers or booleans."""
    words = np.asarray(column)
    if words.dtype.kind in "OT":
        others = {kind.__name__ for kind in set(map(type, words.tolist())) if not issubclass(kind, str)}
        if others:
            named = ", ".join(sorted(others))
            raise EvidenceError(f"Column '{name}' holds {named} beside text; write a missing category as a word.")
        words = words.astype(object).astype(str)
    if words.ndim != 1 or words.dtype.kind not in "Uiub":
        raise EvidenceError(
            f"Column '{name}' holds {words.dtype} of shape {words.shape}; (n,) words or whole numbers are needed "
            "(fractions belong in numbers)."
        )
    return words


def _hashed(name: str, words: npt.NDArray[Any]) -> Hashes:
    """(n,) hash of "name=word"."""
    state = np.full(len(words), _fnv(f"{name}="), np.uint64)
    for rows in blocks(len(words)):
        encoded = np.strings.encode(words[rows].astype(str), "utf-8")
        # Shorter words are padded with NUL bytes, which are left out.
        letters = np.ascontiguousarray(encoded).view(np.uint8).reshape(len(encoded), encoded.dtype.itemsize)
        for letter in letters.T.astype(np.uint64):
            state[rows] = np.where(letter > 0, (state[rows] ^ letter) * np.uint64(PRIME), state[rows])
    return splitmix64(state)


def _fnv(text: str) -> int:
    state = BASIS
    for byte in text.encode():
        state = (state ^ byte) * PRIME & ALL_BITS
    return state
