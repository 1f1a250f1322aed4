"""Tests on one Spark session of this machine."""
