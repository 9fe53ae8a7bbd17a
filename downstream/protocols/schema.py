"""The protocol file as pydantic models: every key checked and bounded, every error naming it.

The format is described in :mod:`downstream.protocols.protocol`; `ProtocolFile.model_json_schema`
gives it as a JSON Schema. A file is data from anywhere: what is read here is only lists and names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from emopeft.downstream.protocols.fields import (
    MOST_FOLDS,
    OVERLAPS,
    Count,
    Dev,
    GroupRule,
    HashRule,
    LongText,
    Members,
    Name,
    Plain,
    Text,
    Texts,
    View,
    declared,
    list_or_other,
    nested_or_flat,
    once,
)
from emopeft.validation import Strict

LARGEST_FILE = 64 << 20  # bytes; the largest shipped protocol is a hundred times smaller
RESERVED = ("train", "dev")  # what a test may not be called: records call those parts so


class StageFile(Strict):
    """A stage of a fold. No ``train``: all who are in no test and no dev part of the fold."""

    name: Plain
    train: Members | None = None
    dev: Dev
    view: View = "clean"
    method: Text | None = None
    freeze: Texts = []
    keys: Annotated[dict[Text, Any], Field(max_length=100)] = {}


class FoldFile(Strict):
    """A fold: ``test`` or named ``tests``; ``dev`` with or without ``train``, or ``stages``."""

    name: Plain
    test: Members | None = None
    tests: Annotated[dict[Plain, Members], Field(min_length=1, max_length=50)] | None = None
    dev: Dev | None = None
    train: Members | None = None
    stages: Annotated[list[StageFile], Field(min_length=1, max_length=20)] | None = None
    view: View = "clean"

    @model_validator(mode="after")
    def _whole(self) -> FoldFile:
        if (self.test is None) == (self.tests is None):
            raise ValueError("the key 'test' is missing (or give named 'tests', not both)")
        if self.stages is None and self.dev is None:
            raise ValueError("the key 'dev' is missing (or give 'stages')")
        if self.stages is not None and (self.dev is not None or self.train is not None):
            raise ValueError("'stages' stands in place of 'train' and 'dev': give one of the two")
        for name in RESERVED:
            if name in self.named_tests():
                raise ValueError(f"a test may not be called '{name}'")
        names = [stage.name for stage in self.all_stages()]
        once(names)
        tested = [(f"test {n}", m) for n, m in self.named_tests().items()]
        if self.test is not None:
            tested = [("test", self.test)]
        for stage in self.all_stages():
            if isinstance(stage.dev, HashRule) and stage.train is not None:
                raise ValueError("a rule for 'dev' and a list of 'train' exclude each other")
            where = f" of stage {stage.name}" if self.stages else ""
            sides: list[tuple[str, Any]] = [*tested, (f"dev{where}", stage.dev)]
            sides.append((f"train{where}", stage.train))
            _apart([(n, m) for n, m in sides if isinstance(m, list)])
        return self

    def all_stages(self) -> list[StageFile]:
        """The stages; without the key one, called "train"."""
        if self.stages is not None:
            return self.stages
        # Checked when the fold was; a second check would name keys that are not in the file.
        one = StageFile.model_construct(
            name="train", train=self.train, dev=self.dev, view=self.view
        )
        return [one]

    def named_tests(self) -> Mapping[str, list[Any]]:
        """The tests by name; without the key one, called "test"."""
        return self.tests if self.tests is not None else {"test": self.test or []}


def _apart(sides: Sequence[tuple[str, list[Any]]]) -> None:
    """No one in a test and in train or dev, nor in train and dev; tests may overlap."""
    for i, (a, ones) in enumerate(sides):
        for b, others in sides[i + 1 :]:
            both = set(ones) & set(others)
            if both and not (a.startswith("test") and b.startswith("test")):
                raise ValueError(f"'{min(both)}' is in {a} and in {b}")


class ProtocolFile(Strict):
    """A protocol file, key by key."""

    name: Name
    version: Count
    corpus: Text | None = None
    corpora: Annotated[Texts, Field(min_length=1, max_length=50)] | None = None
    task: Annotated[
        Annotated[Text, Tag("other")]
        | Annotated[Texts, Field(min_length=1, max_length=20), Tag("list")],
        Discriminator(list_or_other),
    ]
    description: LongText
    source: LongText
    classes: Annotated[Texts, Field(max_length=1000)] = []
    labels: Annotated[
        Annotated[dict[Text, Text], Tag("flat")]
        | Annotated[dict[Text, dict[Text, Text]], Tag("nested")],
        Discriminator(nested_or_flat),
    ] = {}
    counts: dict[Text, Count] = {}
    total: Count | None = None
    unlabelled: bool = False
    speaker_overlap: Texts = []
    unknown_speakers: bool = False
    unscored: Annotated[list[Plain], AfterValidator(once), Field(max_length=50)] = []
    submission: Name | None = None
    unit: Literal["id", "position", "speaker", "session", "rule"]
    leave_out: Texts = []
    rule: GroupRule | None = None
    folds: Annotated[list[FoldFile], Field(max_length=MOST_FOLDS)] = []
    utterances: Annotated[
        Annotated[dict[Text, Text], Tag("other")] | Annotated[Texts, Tag("list")],
        Discriminator(list_or_other),
    ] = {}

    @model_validator(mode="after")
    def _whole(self) -> ProtocolFile:
        if (self.corpus is None) == (self.corpora is None):
            raise ValueError("the key 'corpus' is missing (or give a list of 'corpora', not both)")
        self._check_unit()
        self._check_classes()
        check_unscored(self)
        for part in self.speaker_overlap:
            if part not in OVERLAPS:
                raise ValueError(f"key 'speaker_overlap' may hold dev and test, not '{part}'")
            if part not in declared(self.name, [part]):
                raise ValueError(
                    f"key 'speaker_overlap' declares a {part} part that shares speakers with "
                    f"training, so the name must say so: '{OVERLAPS[part][0]}' is not in "
                    f"'{self.name}'"
                )
        return self

    def _check_unit(self) -> None:
        if self.unit == "rule":
            if self.rule is None or self.folds or self.utterances:
                raise ValueError(
                    "unit 'rule' needs the key 'rule' and neither 'folds' nor 'utterances'"
                )
            return
        if self.rule is not None:
            raise ValueError(f"key 'rule' belongs to unit 'rule', not to '{self.unit}'")
        if not self.folds:
            raise ValueError("key 'folds' is missing or empty")
        if twice := [x for x, n in Counter(f.name for f in self.folds).items() if n > 1]:
            raise ValueError(f"key 'folds': the name '{twice[0]}' stands twice")
        if self.unit in ("id", "position") and not self.utterances:
            raise ValueError(f"unit '{self.unit}' needs the key 'utterances'")
        known = set(self.utterances)
        for i, fold in enumerate(self.folds):
            for key, members in _lists(fold):
                where = f"key 'folds.{i}.{key}'"
                if any(isinstance(m, int) != (self.unit == "position") for m in members):
                    what = "places, whole numbers from 0" if self.unit == "position" else "names"
                    raise ValueError(f"{where} must hold {what}, as the unit '{self.unit}' says")
                if self.unit == "position" and max(members) >= len(known):
                    raise ValueError(
                        f"{where}: position {max(members)} is past the {len(known)} utterances"
                    )
                blind = key.removeprefix("tests.") in self.unscored  # has no class to stand there
                if self.unit == "id" and not blind and (strange := set(members) - known):
                    raise ValueError(f"{where}: '{min(strange)}' is not in 'utterances'")

    def _check_classes(self) -> None:
        if bool(self.labels) != bool(self.classes):
            absent = "classes" if self.labels else "labels"
            raise ValueError(f"key '{absent}' is missing or empty: give both, or neither")
        if self.unlabelled and (not self.labels or self.utterances):
            raise ValueError(
                "key 'unlabelled' adds to those of the 'labels': it needs them, and no 'utterances'"
            )
        if len(self.classes) == 1:
            raise ValueError("key 'classes' needs at least two classes")
        nested = [isinstance(v, dict) for v in self.labels.values()]
        if self.labels and (self.corpora is not None) != all(nested):
            raise ValueError(
                "key 'labels' must hold a map of labels for each of the 'corpora'"
                if self.corpora is not None
                else "key 'labels' must hold label: class, as there is one 'corpus'"
            )
        if self.labels and self.corpora is not None and set(self.labels) != set(self.corpora):
            raise ValueError("keys 'labels' and 'corpora' must name the same corpora")
        used = {c for labels in self.label_maps().values() for c in labels.values()}
        listed = set(self.utterances.values()) if isinstance(self.utterances, dict) else set()
        if isinstance(self.utterances, dict) and self.utterances and not self.classes:
            raise ValueError("key 'utterances' must be a list of ids where there are no 'classes'")
        for key, named in (("labels", used), ("utterances", listed)):
            for strange in sorted(named - set(self.classes)):
                raise ValueError(f"key '{key}': class '{strange}' is not in 'classes'")
        for key, named in (("labels", used), ("counts", set(self.counts))):
            if named and named != set(self.classes):
                raise ValueError(f"keys '{key}' and 'classes' must name the same classes")

    def label_maps(self) -> dict[str, dict[str, str]]:
        """Per corpus, its own label -> class."""
        if self.corpus is not None:
            return {self.corpus: dict(self.labels)} if self.labels else {}  # type: ignore[arg-type]
        return {corpus: dict(labels) for corpus, labels in self.labels.items()}  # type: ignore[arg-type]


def check_unscored(file: ProtocolFile) -> None:
    """Unscored tests stand beside scored ones, and who is in one stands nowhere else."""
    if file.submission is not None and not file.unscored:
        raise ValueError("key 'submission' is how an 'unscored' test is handed in: name the test")
    if not file.unscored:
        return
    if file.rule is not None:
        if file.rule.by != "split":
            raise ValueError(f"key 'unscored' needs tests with names; a rule by {file.rule.by} "
                             "makes none")  # fmt: skip
        return
    if file.unit == "position":
        raise ValueError("key 'unscored' needs unit 'id': who has no class is not in 'utterances'")
    named = {name for fold in file.folds for name in fold.named_tests()}
    if strange := [name for name in file.unscored if name not in named]:
        raise ValueError(f"key 'unscored': no fold has the test '{strange[0]}'")
    blind: set[Any] = set()
    others: set[Any] = set(file.utterances)
    for fold in file.folds:
        if set(fold.named_tests()) <= set(file.unscored):
            raise ValueError(f"fold {fold.name} has only 'unscored' tests: give it a scored one")
        for key, members in _lists(fold):
            side = blind if key.removeprefix("tests.") in file.unscored else others
            side.update(members)
    if both := blind & others:
        raise ValueError(
            f"'{min(both)}' is in an 'unscored' test and elsewhere: it has no target to be used"
        )


def _lists(fold: FoldFile) -> Iterable[tuple[str, list[Any]]]:
    """Every list of a fold, with its key."""
    for name, members in fold.named_tests().items():
        yield ("test" if fold.tests is None else f"tests.{name}"), members
    for i, stage in enumerate(fold.all_stages()):
        prefix = "" if fold.stages is None else f"stages.{i}."
        for key, side in (("dev", stage.dev), ("train", stage.train)):
            if isinstance(side, list):
                yield prefix + key, side
