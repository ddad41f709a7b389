"""Models that a workspace has outputs of: named without their files, on a machine that never had them."""

from __future__ import annotations

from pathlib import Path

from counterplay.errors import ConfigurationError, InputError, nearest
from counterplay.llm.engines.engine import engine_identity
from counterplay.llm.models import CACHED, NATIVE, ModelIdentity
from counterplay.logs.reading import Place
from counterplay.logs.workspace import borrowed


def model_identity(
    workspace: Place,
    spec: str,
    *,
    engine: str = "transformers",
    dtype: str = "float32",
    adapter: str | Path | None = None,
) -> ModelIdentity:
    """The identity of a model: from its files, or, for ``cache:NAME``, from the outputs that a workspace has of it.

    ``cache:NAME@REVISION`` chooses among several weights of one name, by the first digits of their hash; ``dtype`` and
    ``engine`` choose among precisions. Errors: those of `engine_identity`; `InputError` for a name of which there is
    none, `ConfigurationError` for one of which there are several.
    """
    if not spec.startswith(CACHED):
        return engine_identity(spec, engine=engine, dtype=dtype, adapter=adapter)
    if adapter is not None:
        raise ConfigurationError(f"'{spec}' is known with the adapter that it had. Leave the adapter out.")
    name, _, revision = spec.removeprefix(CACHED).partition("@")
    wanted = NATIVE if engine == "xllamacpp" else dtype
    with borrowed(workspace) as opened:
        rows = opened.connection.execute(
            """SELECT DISTINCT model, request ->> '/revision', request ->> '/quantisation', request ->> '/dtype',
                   request ->> '/tokenizer', request ->> '/provider', request ->> '/adapter'
               FROM outputs WHERE operation IN ('loglikelihood', 'generate') AND request ->> '/provider' = 'local'
               ORDER BY ALL"""
        ).fetchall()
    known = [ModelIdentity(**dict(zip(ModelIdentity.__dataclass_fields__, row, strict=True))) for row in rows]
    named = [one for one in known if one.model == name]
    if not named:
        raise InputError(
            f"The workspace has no outputs of a model '{name}' that ran on a machine like this. "
            f"{nearest(name, sorted({one.model for one in known}))}"
        )
    found = [one for one in named if one.dtype == wanted and one.revision.startswith(revision)]
    if len(found) != 1:
        held = "; ".join(
            f"{CACHED}{name}@{one.revision[:12]} in {one.dtype}" + (", with an adapter" if one.adapter else "")
            for one in named
        )
        raise ConfigurationError(
            f"'{spec}' in {wanted} fits {len(found)} of the models whose outputs are stored: {held}. Name one of them, "
            "with its precision."
        )
    return found[0]
