"""Offering files as registered memory, and taking them from another process."""
