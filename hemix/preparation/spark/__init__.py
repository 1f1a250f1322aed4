"""The Spark engine: the stages of a preparation as jobs of a Spark cluster.

Only callers that ask for it import this package. Tasks on executors need neither torch nor pandas.
"""
