"""Means with the uncertainty that comes from having played only so many scenes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 4000
NORMAL_95 = 1.959964


def mean(values: Sequence[float]) -> float:
    """The plain mean, rounded for the report."""
    return round(float(np.mean(values)), 4)


def mean_interval(values: Sequence[float], seed: int = 0) -> list[float]:
    """95 % bootstrap interval of the mean: values are drawn anew with replacement, one value per scene."""
    sample = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(sample), (RESAMPLES, len(sample)))
    low, high = np.percentile(sample[draws].mean(axis=1), (2.5, 97.5))
    return [round(float(low), 4), round(float(high), 4)]


def share_interval(hits: Sequence[bool]) -> list[float]:
    """95 % Wilson interval of a share of hits; sensible also when all or none hit."""
    count = len(hits)
    share, square = sum(hits) / count, NORMAL_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = NORMAL_95 / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return [round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)]
