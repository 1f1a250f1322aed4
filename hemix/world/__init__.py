"""The simulated city: a local-life marketplace whose truth is known."""

from hemix.world.simulate import simulate

__all__ = ["simulate"]
