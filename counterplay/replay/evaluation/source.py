"""A log as an evaluation reads it: chunk by chunk, as often as needed, and never more of it than the policies need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from counterplay.errors import MissingEvidenceError
from counterplay.logs.chunks import BATCH, Chunk, chunk_of, stream_chunks
from counterplay.logs.reading import read_choices, read_log
from counterplay.logs.survey import Survey
from counterplay.logs.workspace import Workspace
from counterplay.replay.evidence import exact_values, with_outcomes
from counterplay.replay.named import NamedPolicy, StoredPolicy

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The decisions of a log for some policies. ``features``: also what a reward model sees."""

    workspace: Workspace
    survey: Survey
    policies: Sequence[NamedPolicy]
    features: bool
    tell: Progress
    batch: int = BATCH

    def chunks(self, what: str) -> Iterator[Chunk]:
        """All chunks, in order; whoever watches is told that ``what`` is being made of them."""
        done, total = 0, self.survey.decisions
        self.tell(done, total, what)
        for chunk in stream_chunks(
            self.workspace,
            self.survey,
            candidates=self.features or any(policy.needs_candidates for policy in self.policies),
            features=self.features,
            policies=self.stored,
            batch=self.batch,
        ):
            yield chunk
            done += len(chunk)
            self.tell(done, total, what)

    @property
    def stored(self) -> list[str]:
        """The stored policies, each once."""
        return list(dict.fromkeys(policy.key for policy in self.policies if isinstance(policy, StoredPolicy)))

    def exact(self, truth: str) -> tuple[dict[str, float | None], list[str]]:
        """The exact value of each policy from the outcome table of the log ``truth``, and why some have none.

        The whole log is read into memory: a log of which every outcome is known is not too large for that.
        """
        self.tell(0, 0, "exact values")
        log = read_log(self.workspace, self.survey.log)
        if truth != self.survey.log:
            log = with_outcomes(log, read_log(self.workspace, truth))
        whole = chunk_of(log, {key: read_choices(self.workspace, self.survey.log, key) for key in self.stored})
        found: dict[str, float | None] = {}
        notes = []
        for policy in self.policies:
            try:
                found[policy.name] = float(exact_values(whole, [policy]).mean())
            except MissingEvidenceError as error:
                found[policy.name] = None
                notes.append(f"The exact value of '{policy.name}' is not known: {error}")
        return found, notes
