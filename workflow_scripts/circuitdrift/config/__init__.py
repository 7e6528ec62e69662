"""The study's configuration as types: the keys that a config file may have, and their defaults.

Every section of ``config.yaml`` is a frozen pydantic model, in the module here that bears its name; the sections of
task families are in ``tasks``. Unknown keys are refused, every default is defined once, and references between
sections (a method's ``phase_1``, a sub-task's parent) are checked before any job starts. No torch: every job imports
this package when it parses the Snakefile.
"""
