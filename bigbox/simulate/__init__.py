"""Boxes for those who have no snapshot: 2LPT, particle-mesh, friends-of-friends haloes.

linear     growth, CAMB's power spectrum           evolve    the steps
initial    the Gaussian field, 2LPT                groups    friends of friends
mesh       forces                                  snapshot  the files
options    what is asked, memory, disk             run       all of it
"""
