"""Simulate a city of users and venues and write its logs, with the true probabilities known."""

from hemix.lab.simulator.writer import simulate

__all__ = ["simulate"]
