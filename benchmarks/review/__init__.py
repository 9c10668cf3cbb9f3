"""Measurements of the review page beside its load test."""
