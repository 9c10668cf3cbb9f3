"""Comparisons of finished runs, and forecasts from a sample."""
