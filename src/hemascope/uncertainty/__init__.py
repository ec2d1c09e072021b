"""Logits → probabilities, sets, an out-of-distribution score; image quality. numpy only."""
