"""Tools to test painters, stores and engines with; `strategies` and `exercised` need hypothesis."""
