"""What can be known to be wrong before the job that would meet it: at parsing, and in the first job of a model. No torch."""
