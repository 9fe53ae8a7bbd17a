"""Emotion metrics by audmetric, and means over folds. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import audmetric

NAMES = ("accuracy", "uar", "macro_f1")


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
        - ``macro_f1``: the mean F1 over the classes present **in truth or in prediction**: an
          absent class that is predicted counts as F1 = 0, one that is in neither is left out
          (scikit-learn's and audmetric's default for ``average="macro"``).
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
    return {
        "accuracy": float(audmetric.accuracy(truth, prediction)),
        "uar": statistics.fmean(r for label, r in recall.items() if label in present),
        "macro_f1": float(audmetric.unweighted_average_fscore(truth, prediction)),
        "confusion": audmetric.confusion_matrix(truth, prediction, list(range(num_classes))),
    }


def mean_std(values: Sequence[float]) -> dict[str, Any]:
    """``{"mean", "std", "n"}``; std is the sample one (n - 1), None for a single value.

    Raises:
        ValueError: no value.
    """
    if not len(values):
        raise ValueError("no value to average")
    numbers = [float(value) for value in values]
    return {
        "mean": statistics.fmean(numbers),
        "std": statistics.stdev(numbers) if len(numbers) > 1 else None,
        "n": len(numbers),
    }
