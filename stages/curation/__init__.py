"""Curation: what is wrong with somebody's pairs, what can be repaired, and which pictures are worth having."""
