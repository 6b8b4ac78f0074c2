"""What a trained model is worth: probes of its representation, scores of its samples."""
