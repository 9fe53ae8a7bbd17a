"""How well raters' votes are predicted, and what the raters themselves reach. Imports no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

Rows = Sequence[Sequence[float]]


def distribution(votes: Sequence[float]) -> list[float]:
    """Votes (or shares) per class, made to add up to 1."""
    total = math.fsum(votes)
    return [vote / total for vote in votes]


def consensus(votes: Sequence[float]) -> int | None:
    """The class that more raters chose than any other (a plurality); None where two are equal."""
    best = max(votes)
    return list(votes).index(best) if list(votes).count(best) == 1 else None


def jensen_shannon(p: Sequence[float], q: Sequence[float]) -> float:
    """The Jensen-Shannon divergence of two distributions in bits: 0 (equal) to 1 (disjoint)."""

    def half(one: Sequence[float]) -> float:
        middle = ((a, (b + c) / 2) for a, b, c in zip(one, p, q, strict=True))
        return math.fsum(a * math.log2(a / m) for a, m in middle if a > 0)

    return max(0.0, (half(p) + half(q)) / 2)


def vote_metrics(votes: Rows, scores: Rows, prediction: Sequence[int]) -> dict[str, float]:
    """Means over utterances of what predictions make of the votes.

    Args:
        votes: per utterance and class (utterances, classes), no row all 0.
        scores: probabilities (utterances, classes). prediction: class indices (utterances,).

    Returns:
        ``js``: Jensen-Shannon divergence in bits. ``nll``: the negative log-likelihood of a
        vote, in nats: -sum_c p_c log q_c, infinite where a class with votes has score 0.
        ``agreed``: the share of an utterance's raters that chose the predicted class.

    Raises:
        ValueError: no utterance.
    """
    if not len(votes):
        raise ValueError("no utterance: no metric")
    shares = [distribution(row) for row in votes]
    return {
        "js": statistics.fmean(map(jensen_shannon, shares, scores)),
        "nll": statistics.fmean(map(_log_loss, shares, scores)),
        "agreed": statistics.fmean(p[i] for p, i in zip(shares, prediction, strict=True)),
    }


def _log_loss(p: Sequence[float], q: Sequence[float]) -> float:
    terms = [(a, b) for a, b in zip(p, q, strict=True) if a > 0]
    return math.fsum(-a * math.log(b) if b > 0 else math.inf for a, b in terms)


def raters_ceiling(votes: Rows) -> dict[str, Any] | None:
    """What a rater reaches as a predictor of the others (leave one rater out).

    Of each utterance with two or more votes each vote is left out in turn; the rest have a
    consensus (a plurality; of several equal classes each is it by an equal part). The vote that was
    left out is right where it is that class.

    Args:
        votes: whole numbers of raters per class (utterances, classes).

    Returns:
        ``right``: the mean share of right votes over utterances. ``uar``: recall of the votes per
        consensus class, its mean over the classes that are one. To lay beside ``agreed`` of a
        model: ``agreed``, how often two raters of an utterance agree, and ``best``, the mean share
        of the most chosen class, above which no prediction of one class can come.
        ``utterances``: how many count. None where votes are shares, so that a rater cannot be left
        out, or no utterance has two.
    """
    if any(vote != int(vote) for row in votes for vote in row):
        return None
    right: dict[int, float] = {}
    every: dict[int, float] = {}
    rights, agreed, best_shares = [], [], []
    for row in votes:
        raters = sum(row)
        if raters < 2:
            continue
        share = 0.0
        for chosen, count in enumerate(row):
            if not count:
                continue
            rest = [vote - (i == chosen) for i, vote in enumerate(row)]
            best = max(rest)
            modes = [i for i, vote in enumerate(rest) if vote == best]
            weight = count / raters / len(modes)  # an utterance counts once, however many raters
            for mode in modes:
                every[mode] = every.get(mode, 0.0) + weight
                right[mode] = right.get(mode, 0.0) + weight * (mode == chosen)
            share += weight * (chosen in modes)
        rights.append(share)
        agreed.append(math.fsum(n * (n - 1) for n in row) / (raters * (raters - 1)))
        best_shares.append(max(row) / raters)
    if not rights:
        return None
    return {
        "right": statistics.fmean(rights),
        "uar": statistics.fmean(right[c] / every[c] for c in sorted(every)),
        "agreed": statistics.fmean(agreed),
        "best": statistics.fmean(best_shares),
        "utterances": len(rights),
    }


def multilabel_metrics(truth: Rows, prediction: Rows) -> dict[str, float]:
    """F1 of several labels at once.

    Args:
        truth, prediction: 0 or 1 per utterance and class (utterances, classes).

    Returns:
        ``macro_f1``: the mean over all classes of 2 TP / (2 TP + FP + FN), 0 for a class that is
        neither there nor predicted (scikit-learn's with ``zero_division=0``). ``micro_f1``: of all
        classes' counts together. ``exact``: the share of utterances with every label right.

    Raises:
        ValueError: no utterance.
    """
    if not len(truth):
        raise ValueError("no utterance: no metric")
    counts = []
    for y, x in zip(zip(*truth, strict=True), zip(*prediction, strict=True), strict=True):
        hits = sum(a == 1 and b == 1 for a, b in zip(y, x, strict=True))
        counts.append((hits, sum(x) + sum(y)))
    return {
        "macro_f1": statistics.fmean(2 * tp / both if both else 0.0 for tp, both in counts),
        "micro_f1": _share(2 * sum(tp for tp, _ in counts), sum(both for _, both in counts)),
        "exact": statistics.fmean(
            list(y) == list(x) for y, x in zip(truth, prediction, strict=True)
        ),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
