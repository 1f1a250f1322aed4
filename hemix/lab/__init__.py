"""What research needs and a ranking server does not. The product never imports it.

``simulator`` makes logs of a city, ``datasets`` of public data, ``studies`` compares models,
``abtest`` runs simulated users against servers, ``benchmarks`` measures.
"""
