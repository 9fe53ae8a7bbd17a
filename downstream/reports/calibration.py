"""How far the probabilities of finished runs can be trusted: sections for a page.

A temperature is fitted on the dev part of each fold and seed; all is shown before and after it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

from emopeft.downstream.measures.columns import NONE, Metric
from emopeft.downstream.reports.calibration_numbers import (
    COVERED,
    MEASURES,
    STATES,
    Calibrated,
    Calibration,
)
from emopeft.downstream.reports.class_runs import Number
from emopeft.downstream.reports.curve_pictures import Curve, curves
from emopeft.downstream.reports.numbers import value
from emopeft.downstream.reports.sections import Grid, Picture, Section
from emopeft.text import plain

BEFORE, AFTER = STATES
COMPARED = ("ece", "nll", "brier", "aurc")  # of which it is said whether a method makes them worse
LEAST_CHOSEN = 200  # clips of dev below which a temperature is called rough


def calibration_sections(found: Calibration) -> list[Section]:
    """Measures before and after a temperature, pictures, and the temperature of each fold."""
    return [
        Section("Calibration", [found.read.title + ".", *_about(found), _measures(found),
                                *_gains(found), *_reservations(found), *_pictures(found)]),
        Section("Temperatures that dev chose", [*_of_dev(found), _temperatures(found)]),
    ]  # fmt: skip


def _about(found: Calibration) -> Iterator[str]:
    """What the numbers are."""
    yield (
        f"On the clips of all folds together, the mean over seeds. ECE: {found.bins} bins of equal "
        "mass, clips of one confidence in one bin; under it what is left of it, by chance, where "
        "every confidence is right. NLL in nats, Brier from 0 to 2. AURC: the mean share wrong "
        "among the surest clips, over all coverages; of an order that says nothing it is the share "
        "wrong. In brackets: 95 % intervals, test speakers drawn 9999 times, temperatures held; "
        "draws repeat clips, so that an interval of ECE lies rather high, of few clips even above "
        "its value."
    )
    yield from found.read.notes


def _measures(found: Calibration) -> Grid:
    """Rows: measure and run; before, after, and both less the frozen probe's."""
    rows = []
    several, compared = len(found.runs) > 1, any(run.gains for run in found.runs)
    for metric in MEASURES:
        for run in found.runs:
            cells = [_shown(metric, run.numbers[state, metric.name]) for state in STATES]
            if compared:
                cells += [
                    _shown(metric, run.gains[state, metric.name], "+") if run.gains else NONE
                    for state in STATES
                ]
            rows.append([metric.title, *([run.run.name] if several else []), *cells])
        if metric.name == "ece":
            for run in found.runs:
                cells = [value(metric, run.chance[state]) for state in STATES]
                cells += [""] * 2 * compared
                rows.append(["  of it, by chance", *([run.run.name] if several else []), *cells])
    headers = ["", *(["run"] if several else []), *STATES]
    if compared:
        headers += [f"less the probe's, {state}" for state in STATES]
    return Grid(headers, rows, "Before and after the temperature")


def _shown(metric: Metric, number: Number, sign: str = "") -> str:
    """``8.94 [6.41, 14.5]``."""
    scale, digits = (100, 2) if metric.percent else (1, 3)
    text = value(metric, number.value)
    if text == NONE:
        return text
    text = f"{scale * number.value:{sign}.{digits}f}"
    if number.interval is None:
        return text
    low, high = (f"{scale * end:{sign}.{digits}f}" for end in number.interval)
    return f"{text} [{low}, {high}]"


def _gains(found: Calibration) -> Iterator[str]:
    """Whether a method makes probabilities worse than the frozen probe's."""
    for run, base in zip(found.runs, found.read.bases, strict=True):
        if run.gains is None or base is None:
            continue
        parts = [f"{state} the temperature {_verdicts(run.gains, state)}" for state in STATES]
        yield (
            f"{run.run.name} against {found.runs[base].run.name}, by intervals that leave 0 out: "
            f"{'; '.join(parts)}."
        )
    if not any(run.gains for run in found.runs):
        yield (
            "No other run here is compared with its frozen probe: name both (a run of -p none on "
            "the same plan and encoder) to see whether adapting makes probabilities worse."
        )


def _verdicts(gains: Mapping[tuple[str, str], Number], state: str) -> str:
    """``worse in ECE, better in NLL, no telling for Brier``."""
    said: dict[str, list[str]] = {"worse in": [], "better in": [], "no telling for": []}
    for metric in MEASURES:
        if metric.name not in COMPARED:
            continue
        interval = gains[state, metric.name].interval
        worse = interval is not None and interval[0] > 0
        better = interval is not None and interval[1] < 0
        how = "worse in" if worse else "better in" if better else "no telling for"
        said[how].append(metric.title.removesuffix(" %"))
    parts = ((how, ", ".join(names[:-1]), names[-1]) for how, names in said.items() if names)
    return ", ".join(
        f"{how} {f'{first} and ' if first else ''}{last}" for how, first, last in parts
    )


def _reservations(found: Calibration) -> Iterator[str]:
    """Scores of 0, and votes."""
    for run in found.runs:
        if run.lost:
            yield (
                f"{run.run.name}: {run.lost} test clip{'s have' if run.lost > 1 else ' has'} a "
                "score of exactly 0 for their own class, which no float64 can hold; its logarithm "
                "is taken as -744.4, the least there is, so that NLL is finite, and rather too low."
            )
        if run.floor > 1e-9:
            yield (
                f"{run.run.name}: targets are raters' votes: NLL and Brier are against their "
                f"shares, whose own entropy is {run.floor:.3f} nats, below which no NLL comes; all "
                f"else is of the {len(run.run.scores.certain)} clips with a consensus, of "
                f"{len(run.run.scores.truth)}."
            )


# ---- temperatures ------------------------------------------------------------------------------


def _of_dev(found: Calibration) -> Iterator[str]:
    """What dev is, and what that means for a temperature."""
    folds = [fold for run in found.runs for fold in run.folds]
    clips, known = {fold.clips for fold in folds}, {fold.speakers for fold in folds}
    whose = f"{_range(known)} speaker{'' if known == {1} else 's'}"
    dev = f"{_range(clips)} clips of {whose if min(known) else 'speakers who are not known'}"
    yield (
        f"The T with the least NLL of softmax(log p / T) on dev (Guo et al. 2017): {dev} in a "
        "fold. T above 1 says that probabilities were too sure. It changes no prediction."
    )
    heard = max(fold.heard for fold in folds)
    if heard:
        yield (
            f"Dev shares up to {heard} speaker{'s' if heard > 1 else ''} of a fold with train: on "
            "voices that were trained on, probabilities are right more often than on new ones, so "
            "that T is rather too low for the test, and what is left over after it is no fault of "
            "the method."
        )
    elif min(known):
        yield "No speaker of dev is trained on, as none of a test's should be."
    if found.runs[0].run.record["audit"].get("leaking"):
        yield (
            "The test's speakers are trained on, as the protocol's name says: on new ones all of "
            "this is rather worse."
        )
    if min(clips) < LEAST_CHOSEN:
        yield f"With {min(clips)} clips of dev a temperature is rough; see how folds differ."
    train = [run.run.record["train"] for run in found.runs]
    if any(of.get("choose") != "last" or of.get("tune", "none") != "none" for of in train):
        yield "Dev also chose what is tested (step, learning rate), and is rather easier for it."


def _range(values: set[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _temperatures(found: Calibration) -> Grid:
    headers = ["run", "fold", "seed", "T", "dev: right %", "dev: NLL", "test: NLL", "test: ECE %",
               ""]  # fmt: skip
    nll, error = (next(m for m in MEASURES if m.name == name) for name in ("nll", "ece"))
    rows = [
        [
            run.run.name, plain(fold.fold), str(fold.seed), f"{fold.temperature.value:.2f}",
            f"{100 * fold.accuracy:.2f}" if fold.accuracy == fold.accuracy else NONE,
            *(
                " → ".join(value(metric, number) for number in numbers)
                for metric, numbers in ((nll, fold.dev), (nll, fold.test), (error, fold.error))
            ),
            fold.temperature.note,
        ]
        for run in found.runs
        for fold in run.folds
    ]  # fmt: skip
    shown = range(len(headers)) if any(row[-1] for row in rows) else range(len(headers) - 1)
    first = 0 if len(found.runs) > 1 else 1
    pick = [i for i in shown if i >= first]
    return Grid(
        [headers[i] for i in pick], [[row[i] for i in pick] for row in rows], "Before → after"
    )


# ---- pictures ------------------------------------------------------------------------------------


def _pictures(found: Calibration) -> list[Picture]:
    reliable = {
        f"{run.run.name}\nECE {' → '.join(_error(run, state) for state in STATES)}": {
            f"{state} the temperature": Curve(
                [b.confidence for b in run.bins[state]], [b.right for b in run.bins[state]],
                marked=True, dashed=False,
            )
            for state in STATES
        }
        for run in found.runs
    }  # fmt: skip
    covered = {
        f"{run.run.name}{', after T' if state == AFTER else ''}": Curve(
            COVERED.tolist(), run.curve[state], dashed=state == AFTER
        )
        for run in found.runs
        for state in STATES
    }
    title = found.read.title.replace(" on ", "\non ", 1)
    return [
        Picture(
            "calibration-reliability",
            f"Share right against confidence in {found.bins} bins of equal mass, before and after "
            "a temperature, beside the line on which they are equal",
            functools.partial(
                curves, panels=reliable, title=title, diagonal=True,
                axes=("confidence in what is said, %", "right, %"),
            ),
        ),
        Picture(
            "calibration-coverage",
            "Share right among the surest clips against how many are kept",
            functools.partial(
                curves, panels={"": covered}, title=title,
                axes=("surest clips that are kept, %", "right of them, %"),
            ),
        ),
    ]  # fmt: skip


def _error(run: Calibrated, state: str) -> str:
    return f"{100 * run.numbers[state, 'ece'].value:.1f} %"
