"""Measure spectra and distributions of a field, in bounded memory."""
