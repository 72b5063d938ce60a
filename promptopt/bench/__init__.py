"""Benchmarks that need no model: recorded matrices, made-up landscapes, and strategies played on both."""
