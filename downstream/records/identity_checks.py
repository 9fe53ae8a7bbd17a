"""Whether a run's identity, and the spelling of its method, are those of the facts beside them.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emopeft.downstream.data.transfer import decisions
from emopeft.downstream.records.schema import FoldFacts


def identity_problems(facts: FoldFacts) -> list[str]:
    """Where the run's identity is not that of the facts beside it."""
    upstream, identity = facts.upstream, facts.identity
    claims: dict[str, Any] = {
        "plan": facts.plan.hash,
        "audio": facts.plan.audio_hash,
        "task": facts.task,
        "upstream": {
            "weights": upstream.weights,
            "loader": upstream.loader,
            "options": upstream.options,
            "code": upstream.code,
        },
        "head": facts.head,
    }
    wrong = [name for name, claim in claims.items() if not _within(claim, identity.get(name))]
    methods = identity.get("methods")
    final_method = facts.stages[-1].method
    if isinstance(methods, dict):
        parts = [{"name": part.name, "options": part.options} for part in facts.method.parts]
        if methods.get(final_method if final_method in methods else "run") != parts:
            wrong.append("methods")
    else:
        wrong.append("methods")
    # Of these the identity holds what can change a result, and the facts hold all.
    for name, whole in (("train", facts.train), ("numerics", facts.numerics.model_dump())):
        recorded = identity.get(name)
        chosen = {"select"} if name == "train" and whole.get("select") is None else set()
        if not isinstance(recorded, dict) or any(
            key not in whole or whole[key] != recorded[key] for key in recorded.keys() - chosen
        ):
            wrong.append(name)
    problems = [f"identity.{name} is not that of the facts beside it" for name in wrong]
    head = identity.get("head")
    starts = isinstance(head, dict) and head.get("init") == "probe"
    if facts.status == "finished" and starts != (facts.probe is not None):
        problems.append("'probe' must be there exactly where identity.head.init is probe")
    if transfer_differs(facts):
        problems.append("identity.transfer is not that of the facts beside it")
    clips = None if facts.clips is None else facts.clips.model_dump(exclude={"cut"})
    if identity.get("clips") != clips:
        problems.append("identity.clips is not that of the facts beside it")
    augment = None if facts.augment is None else facts.augment.model_dump()
    if identity.get("augment") != augment:
        problems.append("identity.augment is not that of the facts beside it")
    if not spec_fits(facts.method.spec, [(p.name, p.options) for p in facts.method.parts]):
        problems.append("method.spec does not say what method.parts say")
    return problems


def transfer_differs(facts: FoldFacts) -> bool:
    """Whether the identity says something else of the stages than the facts do."""
    said = facts.identity.get("transfer", {})
    transfer = facts.transfer
    found: dict[str, Any] = {} if transfer is None else decisions(transfer.model_dump())
    if transfer is not None and transfer.origin is not None:
        claimed = said.get("origin") if isinstance(said, dict) else None
        whole = transfer.origin.model_dump()
        if not isinstance(claimed, dict) or "id" not in claimed or not _within(claimed, whole):
            return True
        found["origin"] = claimed
    return bool(said != found)


def _within(claim: Any, identity: Any) -> bool:
    """Whether an identity says what the facts claim; of an object it may say more."""
    if isinstance(claim, dict) and isinstance(identity, dict):
        return all(key in identity and identity[key] == claim[key] for key in claim)
    return claim == identity


def spec_fits(spec: str, parts: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    """Whether a method's spelling, ``a:x=1,y=p+q+b``, names these parts and no other options."""
    rest = spec
    for number, (name, options) in enumerate(parts):
        if not rest.startswith(name):
            return False
        rest = rest[len(name) :]
        following = parts[number + 1][0] if number + 1 < len(parts) else None
        end = len(rest) if following is None else rest.find(f"+{following}")
        if end < 0:
            return False
        written, rest = rest[:end], rest[end + 1 :]
        if written and not (written.startswith(":") and _options_fit(written[1:], options)):
            return False
    return not rest


def _options_fit(written: str, options: Mapping[str, Any]) -> bool:
    texts = {name: _as_typed(value) for name, value in options.items()}
    for item in written.split(","):
        name, equals, value = item.partition("=")
        if not (texts.get(name) == value if equals else name in texts.values()):
            return False
    return True


def _as_typed(value: Any) -> str:
    """An option's value as a user would type it, see `emopeft.options.written`."""
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
