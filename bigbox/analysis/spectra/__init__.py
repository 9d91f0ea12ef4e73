"""Measure spectra and distributions of a field, in memory or out of core."""
