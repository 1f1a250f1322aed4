"""Metrics of 0/1 labels and scores, named as in the docs and in ``metrics.json``.

Decision 2 says why they are not scikit-learn's: speed, meaning and import time. Tests compare AUC,
log loss and nDCG with its numbers. GAUC, NE, PCOC and the ECE floor it does not have.

Every function takes arrays of rows (impressions) and optional row weights: a row of weight 3 counts
as three such rows, a row of weight 0 as none. A metric that the rows do not define is an
:class:`UndefinedMetric` with a reason, never NaN.
"""

from hemix.evaluation.metrics.calibration import (
    CalibrationPoint,
    calibration_curve,
    ece,
    ece_floor,
    pcoc,
)
from hemix.evaluation.metrics.loss import PROBABILITY_CLIP, base_rate_loss, logloss, ne
from hemix.evaluation.metrics.ranking import RankedPairs, auc, gauc, user_aucs
from hemix.evaluation.metrics.rows import Array, UndefinedMetric
from hemix.evaluation.metrics.top_ranks import RankedLists

__all__ = [
    "PROBABILITY_CLIP",
    "Array",
    "CalibrationPoint",
    "RankedLists",
    "RankedPairs",
    "UndefinedMetric",
    "auc",
    "base_rate_loss",
    "calibration_curve",
    "ece",
    "ece_floor",
    "gauc",
    "logloss",
    "ne",
    "pcoc",
    "user_aucs",
]
