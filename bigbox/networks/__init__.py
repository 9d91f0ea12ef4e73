"""Define HALOgen (haloes from dark matter) and LODI (T_b from haloes), and their files."""
