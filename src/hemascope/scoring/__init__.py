"""Logits → numbers that can be trusted: metrics with their intervals. numpy and scipy only."""
