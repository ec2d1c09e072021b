"""Predictions and labels → figures with intervals. numpy and scipy only."""
