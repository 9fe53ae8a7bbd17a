"""How unequally groups are served by predicted classes, of confusions of each group.

All functions take counts (..., groups, classes of the truth, classes predicted), so that the draws
of a bootstrap are one call. With P_g a share within group g, Y the truth, Z what was predicted:

one class c against the rest, as fairlearn has it (Bird et al. 2020, MSR-TR-2020-32)
    demographic parity    max_g - min_g of P_g(Z = c); the ratio is min_g / max_g
    equal opportunity     max_g - min_g of P_g(Z = c | Y = c) (Hardt et al. 2016)
    equalized odds        the larger of that and of max_g - min_g of P_g(Z = c | Y != c)
all classes at once, as the code of PEFT-SER has it (Feng & Narayanan 2023, usc-sail/peft-ser,
experiment/evaluation.py, which calls holisticai), for any number of groups
    demographic parity    max over c and groups g, h of |P_g(Z = c, Y = c) - P_h(Z = c, Y = c)|
    statistical parity    max over g, h of sum_c |P_g(Z = c) - P_h(Z = c)| / 2
    equal opportunity     max over g, h of the mean over classes k of
                          sum_c |P_g(Z = c | Y = k) - P_h(Z = c | Y = k)| / 2

0 is equal. A group without rows of a class has no recall of it, and takes no part in what is
compared there: fairlearn counts its recall as 0, holisticai spreads it evenly (``absent``). With
fewer than two groups to compare there is no value: NaN. Imports no torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from emopeft.downstream.measures.weighted import recalls

# ---- shares of each group ---------------------------------------------------------------------


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN of nothing."""
    return part / np.where(whole > 0, whole, np.nan)


def _or(values: np.ndarray, absent: float, confusion: np.ndarray) -> np.ndarray:
    """``absent`` in place of NaN, but in groups without any row."""
    rows = confusion.sum((-1, -2)) > 0
    rows = rows.reshape(rows.shape + (1,) * (values.ndim - rows.ndim))
    return np.where(np.isnan(values) & rows, absent, values)


def selection_rates(confusion: np.ndarray) -> np.ndarray:
    """P_g(Z = c), (..., groups, classes)."""
    return _share(confusion.sum(-2), confusion.sum((-1, -2))[..., None])


def true_positive_rates(confusion: np.ndarray, absent: float = math.nan) -> np.ndarray:
    """P_g(Z = c | Y = c), (..., groups, classes)."""
    return _or(recalls(confusion), absent, confusion)


def false_positive_rates(confusion: np.ndarray, absent: float = math.nan) -> np.ndarray:
    """P_g(Z = c | Y != c), (..., groups, classes)."""
    wrong = confusion.sum(-2) - np.diagonal(confusion, axis1=-2, axis2=-1)
    others = confusion.sum((-1, -2))[..., None] - confusion.sum(-1)
    return _or(_share(wrong, others), absent, confusion)


# ---- between groups ---------------------------------------------------------------------------


def gap(rates: np.ndarray) -> np.ndarray:
    """The largest minus the smallest over groups: (..., groups, n) to (..., n)."""
    low, high = np.fmin.reduce(rates, -2), np.fmax.reduce(rates, -2)
    return np.where((~np.isnan(rates)).sum(-2) > 1, high - low, np.nan)


def demographic_parity_difference(confusion: np.ndarray) -> np.ndarray:
    """Of each class against the rest, (..., classes)."""
    return gap(selection_rates(confusion))


def demographic_parity_ratio(confusion: np.ndarray) -> np.ndarray:
    """Of each class against the rest, (..., classes); NaN of one that is never predicted."""
    rates = selection_rates(confusion)
    low, high = np.fmin.reduce(rates, -2), np.fmax.reduce(rates, -2)
    return np.where((~np.isnan(rates)).sum(-2) > 1, _share(low, high), np.nan)


def equal_opportunity_difference(confusion: np.ndarray, absent: float = math.nan) -> np.ndarray:
    """Of each class against the rest, (..., classes)."""
    return gap(true_positive_rates(confusion, absent))


def equalized_odds_difference(confusion: np.ndarray, absent: float = math.nan) -> np.ndarray:
    """Of each class against the rest, (..., classes)."""
    return np.fmax(
        equal_opportunity_difference(confusion, absent),
        gap(false_positive_rates(confusion, absent)),
    )


def peft_ser_demographic_parity(confusion: np.ndarray) -> np.ndarray:
    """Of the shares that are predicted rightly, (...): the largest gap of a class."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    gaps = gap(_share(right, confusion.sum((-1, -2))[..., None]))
    return np.fmax.reduce(gaps, -1)


def peft_ser_statistical_parity(confusion: np.ndarray) -> np.ndarray:
    """Total variation between groups of what is predicted, (...): that of the two farthest."""
    rates = selection_rates(confusion)
    return _farthest(rates, lambda one, other: np.abs(one - other).sum(-1) / 2)


def peft_ser_equal_opportunity(confusion: np.ndarray, absent: float = math.nan) -> np.ndarray:
    """Total variation between groups of what is predicted of a class, its mean over the classes
    that both groups hold, (...): that of the two farthest groups.

    Args:
        absent: the share of each prediction in a class that a group lacks; 1 / classes is what
            holisticai has.
    """
    rows = _or(_share(confusion, confusion.sum(-1)[..., None]), absent, confusion)

    def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        each = np.abs(one - other).sum(-1) / 2
        known = ~np.isnan(each)
        return _share(np.where(known, each, 0.0).sum(-1), known.sum(-1))

    return _farthest(rows, apart, inner=2)


def _farthest(
    values: np.ndarray, apart: Callable[[np.ndarray, np.ndarray], np.ndarray], inner: int = 1
) -> np.ndarray:
    """The largest distance of two groups, (..., groups, <inner axes>) to (...)."""
    axis = values.ndim - inner - 1
    groups = [values.take(i, axis) for i in range(values.shape[axis])]
    found = np.full(values.shape[:axis], np.nan)
    for one, other in itertools.combinations(groups, 2):
        found = np.fmax(found, apart(one, other))
    return found


# What is measured once for all classes, and of each class against the rest, by name in reports.
OVERALL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "demographic parity (PEFT-SER)": peft_ser_demographic_parity,
    "statistical parity (PEFT-SER)": peft_ser_statistical_parity,
    "equality of opportunity (PEFT-SER)": peft_ser_equal_opportunity,
}
PER_CLASS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "demographic parity difference": demographic_parity_difference,
    "demographic parity ratio": demographic_parity_ratio,
    "equal opportunity difference": equal_opportunity_difference,
    "equalized odds difference": equalized_odds_difference,
}
RATIOS = ("demographic parity ratio",)  # 1 is equal, and the smallest is the worst


def worst(name: str, values: np.ndarray) -> np.ndarray:
    """Of the values of each class (..., classes) the worst, (...)."""
    return (np.fmin if name in RATIOS else np.fmax).reduce(values, -1)
