"""Look for seams at the boundaries of tiles."""
