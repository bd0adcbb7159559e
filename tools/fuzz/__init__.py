"""Mutated inputs for everything that reads: `python -m tools.fuzz KIND --count 10000 --seed 0`."""
