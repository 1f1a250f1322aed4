"""Online experiments with simulated users: arms that differ only in who ranks, users who react,
honest statistics.

``living`` lets users of the city live with an arm, ``arms`` are servers, the oracle and popularity,
``effects`` the statistics, ``checks`` say whether to believe them, ``run`` is the experiment.
Servers are spoken to over HTTP as by anybody else; nothing here knows a model.
"""

from hemix.lab.abtest.plan import Plan
from hemix.lab.abtest.run import experiment

__all__ = ["Plan", "experiment"]
