"""The log of rankings and events, the training rows made from it, and the replay of rankings."""

from hemix.serving.ranking_log.log import LogCapacity, RankingLog
from hemix.serving.ranking_log.log_set import RankingLogSet
from hemix.serving.ranking_log.logging_store import LoggingStore

__all__ = ["LogCapacity", "LoggingStore", "RankingLog", "RankingLogSet"]
