"""How fast this machine paints, and how near that is to what it can do at all.

ceilings.py   matrix products, convolutions, copies, the disk
networks.py   the networks alone, and the sampler loop around LODI
painting.py   a real painting through the engine, and the whole of `bigbox bench`
record.py     the numbers on the disk, for `bigbox plan`; imports no torch
"""
