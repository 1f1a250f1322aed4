"""Batch scoring: scores of new impressions in files, by the engine of the server.

Rows become the server's requests (requests.py), events and features its store
(temporary_store.py); scored.py and ranked.py write the result. So the scores are the server's.
"""

from __future__ import annotations

from hemix.batch_scoring.score import ScoringInputs, score

__all__ = ["ScoringInputs", "score"]
