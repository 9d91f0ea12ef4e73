"""Compress maps and boxes by flow matching (CosmoFlow, Kannan et al. 2025).

simulated   maps of simulations over Omega_m and sigma8    masks      which channels at which time
layers      of both networks, for 2-D and 3-D              networks   Encoder, Velocity, presets

What the two networks take and give, with n = edge, f = size.factor, C = size.latent:

    size = networks.PRESETS["small", 2]                 # "small" or "paper", 2 or 3
    flow = networks.Flow(size)                          # .encoder and .velocity, stored as one
    latent = flow.encoder(x1)                           # (B, 1, n, n) -> (B, C, n/f, n/f)
    v = flow.velocity(x_t, t, latent)                   # (B, 1, n, n), t (B,) or (1,) in 0 .. 1
    flow.encoder.reach                                  # voxels beyond its own that a latent sees
    size.multiple                                       # what n must be a multiple of

x_t = t x1 + (1 - t) x0 with x1 the normalised log10 of the field, x0 white noise; v is dx/dt, and
leads from noise at t = 0 to the field at t = 1. Velocity masks the latent by t itself, in a copy: a
solver gives each stage its own t and always the whole latent.
"""
