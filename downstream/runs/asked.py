"""What a run can be asked about a corpus that it was not trained on.

The corpus' labels, merged as its own protocol merges them, meet the run's classes by name; its
ratings those of the same name.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from emopeft.downstream.corpora.base import Corpus, Utterance
from emopeft.downstream.protocols.makers.shared import (
    canonical,
    own_labels,
    published_counts,
    taking_part,
)
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.classes import ClassTask
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.tasks.joint import JointTask
from emopeft.errors import UserError, unknown

CLASSIFIED = ("emotion", "emotion-soft")  # tasks whose outputs are logits of one class


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a run is asked about a corpus.

    Attributes:
        task: measures it. places: of the run's outputs, those that the task takes.
        utterances: those that it has a target of.
        notes: what is left out, one sentence each.
    """

    task: Task
    places: list[int]
    utterances: list[Utterance]
    notes: list[str]


def asked_of(
    task: Task, corpus: Corpus, utterances: Sequence[Utterance], labels: Mapping[str, str]
) -> Asked:
    """What a run of this task can be asked about a corpus; raises UserError where it is nothing.

    Of several tasks that were learned together, the first that can be asked.
    """
    first = 0
    for part in task.parts.values() if isinstance(task, JointTask) else [task]:
        if isinstance(part, ClassTask) and part.name in CLASSIFIED:
            return _classes_of(part, first, corpus, utterances, labels)
        if isinstance(part, DimensionalTask):
            return _ratings_of(part, first, corpus, utterances)
        first += part.outputs
    raise UserError(
        f"a run of task {task.name} cannot be asked about other corpora: take one of "
        f"{', '.join(CLASSIFIED)} or dimensional"
    )


def _classes_of(
    task: ClassTask,
    first: int,
    corpus: Corpus,
    utterances: Sequence[Utterance],
    labels: Mapping[str, str],
) -> Asked:
    """The classes that run and corpus share; scores of others do not take part in the choice."""
    present = {u.emotion for u in utterances if u.emotion}
    merged = own_labels(corpus, utterances)
    for label, name in labels.items():
        if label not in present | set(merged):
            raise unknown(f"label of corpus {corpus.name} in --labels", label, present)
        if name and name not in task.classes:
            raise unknown("class of the run in --labels", name, task.classes)
    merged = {label: name for label, name in (merged | dict(labels)).items() if name}
    known = {label: name for label, name in merged.items() if name in task.classes}
    chosen = taking_part(corpus, utterances, known)
    have = {known[u.emotion or ""] for u in chosen}
    kept = [c for c in task.classes if c in have]
    if len(kept) < 2:
        raise UserError(
            f"the run knows {', '.join(task.classes)}, and {corpus.name} has "
            f"{', '.join(canonical(present))}: two shared classes are needed; say which label is "
            "which class with --labels LABEL=CLASS,..."
        )
    notes = []
    if lacking := [c for c in task.classes if c not in have]:
        notes.append(
            f"has no {', '.join(lacking)}: their scores are left out of the choice, which is among "
            f"{len(kept)} of the run's {len(task.classes)} classes"
        )
    taken = {u.uid for u in chosen}
    rest = Counter(u.emotion or "unlabelled" for u in utterances if u.uid not in taken)
    if rest:
        names = ", ".join(f"{number} {label}" for label, number in sorted(rest.items()))
        notes.append(f"{rest.total()} utterances are left out ({names})")
    published = published_counts([corpus], chosen, {corpus.name: known})
    at_hand = Counter(known[u.emotion or ""] for u in chosen)
    if differ := [c for c in kept if published[c] != at_hand[c]]:
        names = ", ".join(f"{c} {at_hand[c]} instead of {published[c]}" for c in differ)
        notes.append(f"differs from the published counts: {names}")
    places = [first + task.classes.index(c) for c in kept]
    return Asked(EmotionTask(kept, {corpus.name: known}), places, chosen, notes)


def _ratings_of(
    task: DimensionalTask, first: int, corpus: Corpus, utterances: Sequence[Utterance]
) -> Asked:
    """The ratings that both have, predicted on the corpus' own nominal scale."""
    rated = {name for u in utterances for name in u.ratings}
    names = [name for name in task.scales if name in rated]
    if not names:
        raise UserError(
            f"the run predicts {', '.join(task.scales)}, and {corpus.name} is rated for "
            f"{', '.join(sorted(rated)) or 'nothing'}: one of them must be the same"
        )
    if unscaled := [name for name in names if name not in corpus.scales]:
        raise UserError(
            f"the nominal scale of '{unscaled[0]}' in {corpus.name} is not known; give its lowest "
            f"and highest value: -o 'corpus.options={{scale: {{{unscaled[0]}: [1, 5]}}}}'"
        )
    own = DimensionalTask({name: corpus.scales[name] for name in names})
    chosen = [u for u in taking_part(corpus, utterances) if own.target(u) is not None]
    notes = [
        f"{name} is predicted on {'{:g} to {:g}'.format(*task.scales[name])} and moved to "
        f"{'{:g} to {:g}'.format(*corpus.scales[name])}"
        for name in names
        if tuple(task.scales[name]) != tuple(corpus.scales[name])
    ]
    if lacking := [name for name in task.scales if name not in names]:
        notes.append(f"is not rated for {', '.join(lacking)}")
    if len(chosen) < len(utterances):
        notes.append(f"{len(utterances) - len(chosen)} utterances are left out (not rated)")
    return Asked(own, [first + list(task.scales).index(n) for n in names], chosen, notes)
