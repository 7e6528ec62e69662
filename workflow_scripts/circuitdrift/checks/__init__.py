"""What is found to be wrong before the job that would meet it: at parsing, or before any training. No torch."""
