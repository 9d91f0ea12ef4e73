"""A campaign of seeded faults over the real program: `python -m tests.campaign --help`.

place.py      a box, what it must become, the commands, and how an outcome is judged
processes.py  signals: kills, storms, stops, several ranks, a second run meanwhile
inside.py     faults of the machine met by a process: full, read-only and failing disks, no
              memory, NaN, clocks
damage.py     bytes flipped, cut, blanked and lost in files at rest; folders lost in a copy
"""
