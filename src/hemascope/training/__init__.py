"""A Recipe → a run folder."""
