"""The ranking server: live events and raw rank requests in, ranked candidates out."""
