"""Reading an action's name out of what a model said.

Names are compared with compatible characters made alike (NFKC), case folded, and runs of white space as one space; if
none is equal, also without the punctuation and symbols around them: "**Burns**." is "burns". What stands inside stays:
"non-burn" is not "non burn". An action is known by its text and by its label. Where two actions have one name it is the
lowest's, and a text goes before a label; where names differ in what surrounds them only ("C", "C++"), an answer that is
equal to none of them names none.

A pattern is a regular expression with a named group ``action``. It runs in the linear-time engine of Rust's ``regex``
(through polars): no pattern can take exponential time, and what would need to backtrack (look-around, back-references)
is refused when the pattern is given, as are patterns too large to compile. Of an answer the first 20,000 characters are
searched; an answer in which the group is not there is not read.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from counterplay.errors import ConfigurationError

NONE = -1

SEARCHED = 20_000
"""Characters of an answer that a pattern is searched in."""


def folded(name: str) -> str:
    """The form in which names are compared first."""
    # Folding case can undo the composition of characters, hence twice.
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def bare(name: str) -> str:
    """A folded name without the space, punctuation, symbols and control characters around it; may be empty."""
    first, last = 0, len(name)
    while first < last and _surrounds(name[first]):
        first += 1
    while last > first and _surrounds(name[last - 1]):
        last -= 1
    return name[first:last]


class Names:
    """The actions by their names: ``texts[a]`` and ``labels[a]`` are those of action a."""

    def __init__(self, texts: Sequence[str], labels: Sequence[str] = ()) -> None:
        self._actions: dict[str, int] = {}
        self._bare: dict[str, int] = {}
        for known in (texts, labels):
            for action, name in enumerate(known):
                self._actions.setdefault(folded(name), action)
        self._actions.pop("", None)
        for name, action in self._actions.items():
            if self._bare.setdefault(bare(name), action) != action:
                self._bare[bare(name)] = NONE
        self._bare.pop("", None)

    def action(self, answer: str) -> int:
        """The action that the whole answer names, or -1."""
        name = folded(answer)
        return self._actions[name] if name in self._actions else self._bare.get(bare(name), NONE)


class Pattern:
    """A regular expression whose group ``action`` is what is read of an answer.

    Errors: `ConfigurationError` for one that cannot be compiled, or has no such group.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        groups = self._groups([""])
        if "action" not in groups:
            raise ConfigurationError(
                f"The pattern '{expression}' has no group 'action'. Write (?P<action>...) around what names the action."
            )

    def read(self, answers: Iterable[str]) -> list[str | None]:
        """What the group holds at the first place where the pattern matches each answer; None where it does not."""
        return self._groups([answer[:SEARCHED] for answer in answers])["action"]

    def _groups(self, answers: list[str]) -> dict[str, list[str | None]]:
        import polars as pl

        try:
            # An expression is not looked at before there is something to search.
            found = pl.Series("answers", answers or [""], dtype=pl.String).str.extract_groups(self.expression)
        except pl.exceptions.ComputeError as error:
            raise ConfigurationError(
                f"The pattern '{self.expression}' cannot be used: {_last_line(error)}. Look-around and back-references "
                "are not known; see the syntax of Rust's regex."
            ) from error
        if found.dtype == pl.Struct([]) or not isinstance(found.dtype, pl.Struct):
            return {}
        return {name: found.struct.field(name).to_list()[: len(answers)] for name in found.struct.fields}


def _surrounds(character: str) -> bool:
    return unicodedata.category(character)[0] in "ZPSC"


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].removeprefix("error: ").rstrip(".")
