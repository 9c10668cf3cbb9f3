"""The audit of somebody's pairs or triplets: a run that measures them, a table, a page, and a repaired copy."""
