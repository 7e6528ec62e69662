"""The study's configuration as types: what a config file may say, and what it means when it says nothing.

Every section of ``config.yaml`` is one frozen pydantic model, in the module here that bears its name. Unknown keys
are refused, every default stands here and nowhere else, and cross-references (a method's ``phase_1``, a sub-task's
parent) are checked before any job starts. No torch: the Snakefile imports this package each time that a job parses it.
"""
