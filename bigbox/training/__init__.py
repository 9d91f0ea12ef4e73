"""Train the networks: data and splits, losses, the loop, the model card."""
