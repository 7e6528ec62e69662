"""Tasks: clean and corrupted prompts with their answers, in three splits that share no clean prompt."""
