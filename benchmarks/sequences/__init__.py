"""Benchmarks of models of sequences."""
