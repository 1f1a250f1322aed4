"""Research tools; the product never imports them.

``simulator`` and ``datasets`` make logs, ``studies`` compares models, ``abtest`` tests rankers with
simulated users, ``benchmarks`` measures speed and memory.
"""
