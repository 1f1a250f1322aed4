"""Logs of special kinds."""
