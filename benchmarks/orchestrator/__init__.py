"""Benchmarks of the orchestrator; in simulated time the real one runs, its clock and engines replaced."""
