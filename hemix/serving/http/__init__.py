"""The ranking server's HTTP: routes, limits, pages. Needs the extra ``serve``."""
