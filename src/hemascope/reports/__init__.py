"""Records → figures and self-contained pages."""
