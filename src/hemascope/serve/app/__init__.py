"""The service: requests → predictions and counts."""
