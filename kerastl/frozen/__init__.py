"""What is frozen is run once."""
