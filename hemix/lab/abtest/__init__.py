"""Simulated A/B tests: the same users with several rankers.

Arms differ only in who ranks: a server over HTTP, the oracle or popularity. ``run`` runs an
experiment, ``effects`` and ``analysis`` hold the statistics, ``checks`` test their assumptions.
"""

from hemix.lab.abtest.plan import ExperimentPlan
from hemix.lab.abtest.run import experiment

__all__ = ["ExperimentPlan", "experiment"]
