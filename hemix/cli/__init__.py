"""The command line: parse, call the API, print. A file holds the commands of a group."""

from hemix.cli.app import main

__all__ = ["main"]
