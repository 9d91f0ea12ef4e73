"""What holds for all unit tests: no example fails for taking long; half as many as usual."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "untimed",
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("untimed")
