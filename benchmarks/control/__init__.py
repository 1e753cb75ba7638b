"""Benchmarks of control: programs, closed loops, plans."""
