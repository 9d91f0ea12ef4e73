"""How fast this machine paints, and how near that is to what it can do at all.

ceilings.py   matrix products, convolutions, copies, the disk
painting.py   the networks alone, the sampler loop around LODI, a painting through the engine
record.py     the numbers on the disk, for `bigbox plan`; imports no torch
"""
