"""Evaluate models on simulations that no training saw: what `bigbox evaluate` does."""
