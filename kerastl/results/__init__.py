"""Results of a trained model."""
