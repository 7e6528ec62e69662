"""Tasks: clean and corrupted prompts with their answers, in three splits that share no clean prompt.

Each family is one module: its section of the config file, and the generator of its examples. ``families.py`` lists
them. Parsing the Snakefile imports this package, so no module of it imports torch, transformers or pandas.
"""
