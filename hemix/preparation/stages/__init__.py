"""The stages of a preparation, each a function of plain inputs: an engine runs them.

partition, clean, count, fit, aggregate, write, in this order; pipeline.py commits their result.
"""
