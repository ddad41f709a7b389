"""The triage task: which leaf codes, which blocks, in which order.

A *leaf* is a code of ICD-10-CM that has no longer code beneath it, apart from the seventh-character extensions
("initial encounter", "sequela", ...): 36,343 of them in the April 2026 release (package simple-icd-10-cm 1.5.0). A
*block* is the deepest block above a leaf: 285 of them. The text of a block is its description without the range of
codes at its end.

The order of the leaves is that of the SHA-256 of a salt and the code: it carries no alphabet, needs no random
generator, and is the same on every machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from counterplay.errors import MissingExtraError

ORDER_SALT = "counterplay triage order 1:"
HELD_OUT_SALT = "counterplay triage held-out 1:"

_CODE_RANGE = re.compile(r"\s*\([A-Z0-9]+-[A-Z0-9]+\)$")


@dataclass(frozen=True, kw_only=True)
class Triage:
    """Contexts, actions and the right answer.

    ``context_ids`` and ``texts``: n leaf codes and their descriptions, in the demo's order. ``action_labels`` and
    ``action_texts``: K blocks in the order of the classification. ``labels``: for each leaf the index of its block.
    """

    context_ids: tuple[str, ...]
    texts: tuple[str, ...]
    labels: tuple[int, ...]
    action_labels: tuple[str, ...]
    action_texts: tuple[str, ...]


def shuffled(codes: Iterable[str], salt: str = ORDER_SALT) -> list[str]:
    """The codes in the order of SHA-256(salt + code)."""
    return sorted(codes, key=lambda code: hashlib.sha256((salt + code).encode()).digest())


@cache
def load_triage() -> Triage:
    """Read the task from the classification; takes about two seconds and 250 MB, once per process."""
    icd = _classification()
    codes = list(dict.fromkeys(icd.get_all_codes(True)))
    leaves = shuffled(code for code in codes if _is_leaf(icd, code))
    block_of = {leaf: _block(icd, leaf) for leaf in leaves}
    used = set(block_of.values())
    blocks = [code for code in codes if code in used]
    index = {block: i for i, block in enumerate(blocks)}
    return Triage(
        context_ids=tuple(leaves),
        texts=tuple(icd.get_description(leaf) for leaf in leaves),
        labels=tuple(index[block_of[leaf]] for leaf in leaves),
        action_labels=tuple(blocks),
        action_texts=tuple(_CODE_RANGE.sub("", icd.get_description(block)) for block in blocks),
    )


def _classification() -> Any:
    try:
        import simple_icd_10_cm
    except ImportError as error:
        raise MissingExtraError(
            "The demo reads its clinical texts from the package simple-icd-10-cm, which is not installed. "
            "Install it with: pip install 'counterplay[demo]'"
        ) from error
    return simple_icd_10_cm


def _is_leaf(icd: Any, code: str) -> bool:
    if icd.is_extended_subcategory(code) or not icd.is_category_or_subcategory(code):
        return False
    return all(icd.is_extended_subcategory(child) for child in icd.get_children(code))


def _block(icd: Any, leaf: str) -> str:
    # A few blocks consist of one category and share its code (B20, C50, ...), so the leaf itself is asked first.
    return next(str(code) for code in (leaf, *icd.get_ancestors(leaf)) if icd.is_block(code))
