"""How the numbers of groups look in tables."""

from __future__ import annotations

import math

from emopeft.downstream.measures import fairness
from emopeft.downstream.measures.by_group import CCC, GAP, UAR, WA, Number, Quantity, verdict
from emopeft.downstream.measures.columns import NONE
from emopeft.downstream.measures.resampling import Interval
from emopeft.downstream.reports.group_numbers import Measured
from emopeft.downstream.reports.group_runs import Part

TOO_FEW = "too few"
TITLES = {UAR: "UAR %", WA: "WA %", CCC: "CCC"}


def sentence(note: str) -> str:
    """A note as a paragraph."""
    return f"{note[:1].upper()}{note[1:]}."


def measure_title(measure: str) -> str:
    """A measure's name in tables."""
    name = measure.removesuffix(f" {GAP}")
    return f"{TITLES[name]} gap" if name in TITLES else measure


def factor_of(measure: str) -> float:
    """What a measure is multiplied with where it is shown: percent, but for CCC and ratios."""
    return 1.0 if measure.startswith(CCC) or measure in fairness.RATIOS else 100.0


def scaled(number: Number | None, factor: float) -> tuple[float, Interval | None] | None:
    """Value and interval as pictures show them; None where there is no value."""
    if number is None or math.isnan(number.value):
        return None
    ends = number.interval
    return factor * number.value, None if ends is None else (factor * ends[0], factor * ends[1])


def text_of(measure: str, value: float | None, signed: bool = False) -> str:
    """A value; a dash where there is none."""
    if value is None or math.isnan(value):
        return NONE
    factor, sign = factor_of(measure), "+" if signed else ""
    return f"{factor * value:{sign}.{2 if factor > 1 else 3}f}"


def cell(measure: str, number: Number | None, signed: bool = False) -> str:
    """``61.20 [55.10, 66.00]``; a dash where there is no value."""
    if number is None or math.isnan(number.value):
        return NONE
    text = text_of(measure, number.value, signed)
    if number.interval is None:
        return text
    low, high = (text_of(measure, end, signed) for end in number.interval)
    return f"{text} [{low}, {high}]"


def asked(part: Part) -> list[str]:
    """What is compared with the frozen encoder: the gap that counts first."""
    gaps = [f"{UAR} {GAP}", f"{WA} {GAP}"] if part.classes else [f"{CCC} {GAP}"]
    return [*gaps, *fairness.OVERALL, *fairness.PER_CLASS] if part.classes else gaps


def change(of: Measured, part: Part, measure: str) -> tuple[Number, str] | None:
    """How much further apart groups are than with the frozen encoder, and what that says."""
    more = of.more.get(Quantity(measure, None, part.dimension))
    if more is None or math.isnan(more.value):
        return None
    return more, verdict(more, measure in fairness.RATIOS)
