"""Measurements of the audit of somebody's pairs, and of the search for near-duplicates."""
