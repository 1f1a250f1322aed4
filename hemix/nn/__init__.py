"""Building blocks of models: tables, attention, tokens, heads. None knows a model, a file or a
schema."""
