"""Images and labels: sources (where they come from), pack (how they lie on disk), loader (how a training step sees them)."""
