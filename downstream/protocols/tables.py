"""The protocols of all corpora but IEMOCAP, as Python data: folds of speakers, sessions, a rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

FOUR = ("neutral", "happy", "sad", "angry")
FOUR_TEXT = "4 classes: neutral, happy, sad, angry"
PEFT_SER = "PEFT-SER (Feng & Narayanan 2023, arXiv 2306.05350)"
EMOBOX = "EmoBox (Ma et al. 2024)"
RATED = ["emotion", "dimensional"]
VOTED = ["emotion-soft", "emotion-multi"]


def protocols() -> Iterator[dict[str, Any]]:
    """All but IEMOCAP's."""
    yield from _ravdess()
    yield from _cremad()
    yield from _emodb()
    yield from _savee()
    yield from _tess()
    yield from _esd()
    yield from _manifest()
    yield _demo()
    yield from _demo_domains()


def protocol_of(
    name: str,
    corpus: str,
    classes: Sequence[str],
    counts: dict[str, int],
    description: str,
    source: str,
    folds: Sequence[tuple[Sequence[str], Any]],
    unit: str = "speaker",
    **more: Any,
) -> dict[str, Any]:
    """A protocol as its file has it; ``folds`` are (test, dev), named "1", "2", …"""
    return {
        "name": name,
        "version": 1,
        "corpus": corpus,
        "task": "emotion",
        "description": description,
        "source": source,
        "classes": list(classes),
        "labels": {label: label for label in classes},
        "counts": {label: counts[label] for label in classes},
        "unit": unit,
        "folds": folds_of(folds),
        **more,
    }


def folds_of(folds: Sequence[tuple[Sequence[str], Any]]) -> list[dict[str, Any]]:
    """Folds as a file has them, from (test, dev), named "1", "2", …"""
    return [
        {"name": str(i), "test": list(test), "dev": dev if isinstance(dev, dict) else list(dev)}
        for i, (test, dev) in enumerate(folds, start=1)
    ]


def both(
    name: str,
    corpus: str,
    counts: dict[str, int],
    text: str,
    all_text: str,
    *rest: Any,
    task: Any = "emotion",
    **more: Any,
) -> Iterator[dict[str, Any]]:
    """The same folds with all classes, for all of ``task``, and with four classes."""
    stem, _, tail = name.partition("-random-dev")
    tail = "-random-dev" if "-random-dev" in name else tail
    yield protocol_of(
        name, corpus, tuple(counts), counts, f"{text} {all_text}.", *rest, task=task, **more
    )
    four = f"{stem}-4class{tail}"
    yield protocol_of(four, corpus, FOUR, counts, f"{text} {FOUR_TEXT}.", *rest, **more)


def following(groups: Sequence[Sequence[str]]) -> list[tuple[Sequence[str], Sequence[str]]]:
    """Each group is tested once, the next one is its dev part."""
    return [(group, groups[(i + 1) % len(groups)]) for i, group in enumerate(groups)]


def _next_pair(test: Sequence[str], order: Sequence[str], males: set[str], each: int) -> list[str]:
    """The next ``each`` men and ``each`` women after the tested ones, going round in ``order``."""
    start = max(order.index(speaker) for speaker in test) + 1
    following = [s for s in (*order[start:], *order[:start]) if s not in test]
    men = [s for s in following if s in males][:each]
    women = [s for s in following if s not in males][:each]
    return sorted(men + women)


def _ravdess() -> Iterator[dict[str, Any]]:
    tests = [
        ["01", "11", "20", "21"], ["04", "10", "12", "14"], ["08", "09", "19", "23"],
        ["03", "05", "07", "24"], ["02", "15", "16", "18"], ["06", "13", "17", "22"],
    ]  # fmt: skip
    order = [actor for test in tests for actor in test]
    males = {actor for actor in order if int(actor) % 2}
    counts = dict.fromkeys(
        ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised"), 192
    )
    counts["neutral"] = 96
    yield from both(
        "ravdess-6fold",
        "ravdess",
        counts,
        "Six folds of four test actors (EmoBox's); dev: the next two men and two women in the "
        "order of the following folds; the other sixteen actors are trained on.",
        "All 8 classes",
        f"test actors: {EMOBOX}, RAVDESS folds; dev actors: fixed here",
        [(test, _next_pair(test, order, males, each=2)) for test in tests],
        task=RATED,
    )


def _cremad() -> Iterator[dict[str, Any]]:
    actors = [str(n) for n in range(1001, 1092)]
    # KFold(5) without shuffling: 91 = 19 + 18 + 18 + 18 + 18.
    sizes, folds, start = (19, 18, 18, 18, 18), [], 0
    for size in sizes:
        test = actors[start : start + size]
        rest = [actor for actor in actors if actor not in test]
        folds.append((test, rest[-15:]))  # 72 or 73 remain; -n // 5 is -15 for both
        start += size
    names = ("neutral", "happy", "sad", "angry", "fearful", "disgusted")
    counts = dict.fromkeys(names, 1271)
    counts["neutral"] = 1087
    yield from both(
        "cremad-5fold",
        "cremad",
        counts,
        "Five folds over the actors in order, speakers apart; dev: the last fifth (15) of the "
        "remaining actors. Labels are the intended emotions of the file names, not the votes.",
        "All 6 classes",
        f"{PEFT_SER}, train_split_gen/crema-d.py (which labels by majority vote instead)",
        folds,
        task=["emotion", *VOTED],
    )


def _emodb() -> Iterator[dict[str, Any]]:
    speakers = ["03", "08", "09", "10", "11", "12", "13", "14", "15", "16"]
    males = {"03", "10", "11", "12", "15"}
    counts = {
        "neutral": 79, "happy": 71, "sad": 62, "angry": 127, "fearful": 69, "disgusted": 46,
        "bored": 81,
    }  # fmt: skip
    yield from both(
        "emodb-loso",
        "emodb",
        counts,
        "Leave one speaker out, ten folds in the order 03 08 09 10 11 12 13 14 15 16; dev: the "
        "next man and the next woman in that order; the other seven are trained on.",
        "All 7 classes",
        "speakers: Burkhardt et al. 2005; dev speakers: fixed here",
        [([s], _next_pair([s], speakers, males, each=1)) for s in speakers],
    )


def _savee() -> Iterator[dict[str, Any]]:
    names = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
    counts = dict.fromkeys(names, 60)
    counts["neutral"] = 120
    yield from both(
        "savee-4fold",
        "savee",
        counts,
        "Leave one speaker out in the order JE KL DC JK; dev: the next speaker; the other two are "
        "trained on.",
        "All 7 classes",
        f"test speakers: {EMOBOX}, SAVEE folds; dev speakers: fixed here",
        following([["JE"], ["KL"], ["DC"], ["JK"]]),
    )


def _tess() -> Iterator[dict[str, Any]]:
    names = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
    yield from both(
        "tess-2fold-random-dev",
        "tess",
        dict.fromkeys(names, 400),
        "Two speakers: one is tested, the other trained on, so that the dev part cannot but share "
        "the training speaker. Dev: about a fifth of the 200 words, those whose SHA-256 leaves 0 "
        "modulo 5, in every emotion; no dev word is a training word.",
        "All 7 classes",
        "speakers: Pichora-Fuller & Dupuis 2020 (TESS); dev words: fixed here",
        [([speaker], {"part": 1, "modulus": 5, "remainder": 0}) for speaker in ("OAF", "YAF")],
        speaker_overlap=["dev"],
    )


def _esd() -> Iterator[dict[str, Any]]:
    names = ("neutral", "happy", "sad", "angry", "surprised")
    languages = {
        "English": (
            "a man (0011-0014, 0020) and a woman (0015-0019)",
            ["0011 0015", "0012 0016", "0013 0017", "0014 0018", "0019 0020"],
            range(1, 11),
        ),
        "Mandarin": (
            "a woman (0001-0003, 0007, 0009) and a man (0004-0006, 0008, 0010)",
            ["0001 0004", "0002 0005", "0003 0006", "0007 0008", "0009 0010"],
            range(11, 21),
        ),
    }
    for language, (who, pairs, others) in languages.items():
        yield from both(
            f"esd-{language.lower()}-5fold",
            "esd",
            dict.fromkeys(names, 3500),
            f"The ten {language} speakers, five folds of {who}, speakers apart; dev: the next "
            "pair. The official split mixes speakers. The same 350 texts are read by all.",
            "All 5 classes",
            "speakers and sexes: read-me of ESD (Zhou et al. 2021); folds: fixed here",
            following([pair.split() for pair in pairs]),
            leave_out=[f"{n:04d}" for n in others],
        )


def _manifest() -> Iterator[dict[str, Any]]:
    about = {
        "speakers": "speaker (ten or fewer) or per group of them (five groups)",
        "sessions": "session (ten or fewer) or per group of them (five groups)",
    }
    for name, text in about.items():
        by = name[:-1]
        yield _rule(
            f"manifest-{name}",
            f"A fold per {text}; the next is the dev part. Classes: the labels present.",
            {"by": by, "one_each_up_to": 10, "folds": 5},
        )
    text = (
        "One fold from the manifest's column 'split': train, dev (also validation, development) "
        "and test (evaluation is test where there is no test, else dev); test1, test-phone and the "
        "like are tests of their own."
    )
    yield _rule(
        "manifest-split", f"{text} Speakers apart. Classes: the labels present.", {"by": "split"}
    )
    yield _rule(
        "manifest-split-random-dev",
        f"{text} Dev may share speakers with train. Classes: the labels present.",
        {"by": "split"},
        speaker_overlap=["dev"],
    )


def _rule(name: str, description: str, rule: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "version": 1,
        "corpus": "manifest",
        "task": [*RATED, *VOTED],
        "description": description,
        "source": "a rule of EmoPEFT on the user's own data",
        "unit": "rule",
        "rule": rule,
        **more,
    }


def _demo() -> dict[str, Any]:
    return protocol_of(
        "demo-5fold",
        "demo",
        FOUR,
        dict.fromkeys(FOUR, 60),
        "Leave one session out on the synthetic demo corpus; dev: the next session. Not emotional "
        "speech: for trying the harness only.",
        "downstream/corpora/demo.py",
        following([[str(k)] for k in range(1, 6)]),
        unit="session",
        task=RATED,
    )


def _demo_domains() -> Iterator[dict[str, Any]]:
    halves = {
        "demo-domains": "the synthetic demo corpus of two domains, both of them",
        "demo-acted": "the acted half of the synthetic demo corpus of two domains",
        "demo-natural": "the natural half of the synthetic demo corpus of two domains",
    }
    for name, what in halves.items():
        yield protocol_of(
            f"{name}-3fold",
            name,
            FOUR,
            dict.fromkeys(FOUR, 48 if name == "demo-domains" else 24),
            f"Leave one session out on {what}; dev: the next session. Not emotional speech: for "
            "trying the harness only.",
            "downstream/corpora/demo_domains.py",
            following([[str(k)] for k in range(1, 4)]),
            unit="session",
            task=RATED,
        )
