"""Benchmarks of the data against ground truth: real pairs, rendered scenes, composites."""
