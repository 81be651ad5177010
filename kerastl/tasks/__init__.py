"""What is told of an image, a file each."""
