"""Boxes for those who have no snapshot: 2LPT, particle-mesh, friends-of-friends haloes."""
