"""One profile of hypothesis for all tests: the same examples on every machine, and no deadline on a busy one."""

from hypothesis import settings

settings.register_profile("seriatim", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("seriatim")
