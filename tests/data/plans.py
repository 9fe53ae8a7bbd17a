"""Plans with audio, and with several stages and tests."""

from __future__ import annotations

import hashlib

from emopeft.downstream.data.plan import Plan
from tests.protocols.cases import plan_of, protocol_of, utterance


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def heard(plan: Plan, **same: str) -> Plan:
    """With audio: of each utterance its own, or that of the one named."""
    audio = {e.uid: sha(same.get(e.utterance.id, e.utterance.id)) for e in plan.examples()}
    return plan.with_audio(audio, dict.fromkeys(audio, 1.0))


SPOKEN = [utterance(f"{s}{e}", s, e) for s in "abcdef" for e in ("sad", "happy")]


def staged(tests: dict, *stages: dict, **changes) -> Plan:
    folds = [{"name": "1", "tests": tests, "stages": list(stages)}]
    return plan_of(protocol_of(folds=folds, **changes), SPOKEN)
