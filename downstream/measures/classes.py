"""Emotion metrics by audmetric, and means over folds. Imports no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import audmetric


def emotion_metrics(
    truth: Sequence[int], prediction: Sequence[int], num_classes: int
) -> dict[str, Any]:
    """Metrics of one test set, as plain numbers that JSON can hold.

    Args:
        truth, prediction: class indices 0 ... num_classes-1, one per utterance, (utterances,).
        num_classes: the number of classes of the protocol.

    Returns:
        - ``accuracy`` (WA): correct / all.
        - ``uar``: the mean recall over the classes **present in truth**; a class that this test
          set does not hold can be neither found nor missed (scikit-learn's balanced accuracy;
          Schuller et al., Interspeech 2009 challenge).
        - ``macro_f1``: the mean F1 over the same classes (scikit-learn's ``f1_score`` with
          ``labels`` of those present and ``average="macro"``), so that what it averages does not
          depend on the predictions. Predicting an absent class costs recall where it was wrong.
        - ``confusion``: num_classes lists of num_classes counts; rows are truth.

    Raises:
        ValueError: no utterance, unequal lengths, or an index out of range.
    """
    if not len(truth) or len(truth) != len(prediction):
        raise ValueError(f"{len(truth)} truths and {len(prediction)} predictions: no metric")
    for name, indices in (("truth", truth), ("prediction", prediction)):
        if min(indices) < 0 or max(indices) >= num_classes:
            raise ValueError(f"a {name} lies outside 0 ... {num_classes - 1}")
    # Never hand audmetric a subset of the labels: it would forget the predictions outside the
    # subset and so raise the recall of the classes inside it.
    present = set(truth)
    recall = audmetric.recall_per_class(truth, prediction)
    f1 = audmetric.fscore_per_class(truth, prediction)
    return {
        "accuracy": float(audmetric.accuracy(truth, prediction)),
        "uar": statistics.fmean(r for label, r in recall.items() if label in present),
        "macro_f1": statistics.fmean(f for label, f in f1.items() if label in present),
        "confusion": audmetric.confusion_matrix(truth, prediction, list(range(num_classes))),
    }


def mean_std(values: Sequence[float]) -> dict[str, Any]:
    """``{"mean", "std", "n"}``; std is the sample one (n - 1), None for a single value.

    A NaN, or values whose sum no float can hold, give NaN: what is not known is never left out.

    Raises:
        ValueError: no value.
    """
    if not len(values):
        raise ValueError("no value to average")
    numbers = [float(value) for value in values]
    try:
        mean = statistics.fmean(numbers)
        std = statistics.stdev(numbers) if math.isfinite(mean) and len(numbers) > 1 else math.nan
    except (OverflowError, ValueError):  # infinities of both signs, or beyond the largest float
        mean = std = math.nan
    return {"mean": mean, "std": std if len(numbers) > 1 else None, "n": len(numbers)}
