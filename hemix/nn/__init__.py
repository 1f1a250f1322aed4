"""Building blocks of models: tables, attention, tokens, heads. None knows a model, a file or a
schema.

A tensor's name ends in the letters of its shape: ``events_ED`` is [E, D]. A capital letter means
the same in `hemix.nn`, `hemix.models` and `hemix.exporting`:

    rows of a batch     R users                 Q requests              N candidates
                        I distinct item rows    V distinct values of an event field
                        E events of all users; 1 + E rows with the null event in row 0
    in a group          B its rows, users       C requests a user       K candidates a request
    (hemix.nn.slots)    J queries a request     L keys a user: the null event, then the events
    widths              D token                 d embedding table, or a head: D / H
                        U hidden units          W vectors of a level    P input of the heads
    counts              T tasks                 S tokens                F fields
                        H attention heads       M mix heads             A age buckets
                        G groups of a GroupedLinear

Of the small letters, ``x`` is any width, ``h`` is H or 1, and ``m`` counts numbers (dense values).
Others belong to one module, whose docstring explains them.
"""
