"""Measurements, each a script that prints one JSON line. `make bench` runs them all.

These machines are noisy: what counts are ratios within one run. Nothing here is asserted by a timed test.
"""
