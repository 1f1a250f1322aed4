"""Studies: comparisons, ablations and scaling of models over many training runs.

A study is a set of trials. Each trial trains and evaluates one candidate in its own process.
"""
