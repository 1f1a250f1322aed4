"""What was served, kept: rankings as training rows, events as an event log, and the way back to the
same scores.
"""

from hemix.serving.served.log import LogCapacity, ServedLog
from hemix.serving.served.logs import ServedLogs
from hemix.serving.served.store import LoggedStore

__all__ = ["LogCapacity", "LoggedStore", "ServedLog", "ServedLogs"]
