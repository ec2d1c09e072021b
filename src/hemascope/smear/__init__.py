"""Smear fields → located cells → a differential count."""
