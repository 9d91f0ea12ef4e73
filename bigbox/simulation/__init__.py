"""Boxes for those who have no snapshot: 2LPT, particle-mesh, friends-of-friends haloes.

linear     growth, CAMB's power spectrum           friends   which particles are linked
initial    the Gaussian field, 2LPT                groups    the haloes that they make
mesh       forces, on a CPU or a GPU               snapshot  the files
evolve     the steps                               run       all of it
options    what is asked, memory, disk             seeds     several, into boxes to train on
"""
