"""Fine-tuning: adapters, the training loop, checkpoints, and accuracy at each checkpoint."""
