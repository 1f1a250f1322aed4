"""The simulated city: a local-life marketplace whose truth is known."""

from hemix.lab.simulator.simulate import simulate

__all__ = ["simulate"]
