"""Benchmarks of the engine: overhead, memory, start-up, resuming."""
