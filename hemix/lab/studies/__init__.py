"""Studies: many runs on the same data, compared.

They train and evaluate through the rooms that do so, each run in a process of its own.

cells.py      what one run is, and where its results lie
cell.py       the process that makes them
runner.py     runs side by side; what they will cost
inputs.py     datasets of one study, and their impressions
compare.py    models
ablate.py     variants of HeMix
scale.py      sizes and histories, and the laws fitted to them
"""
