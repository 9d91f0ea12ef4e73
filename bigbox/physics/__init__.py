"""Physics of the field: cosmology, mass bins, HI, brightness temperature, smoothing."""
