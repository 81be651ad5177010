"""What the model learnt."""
