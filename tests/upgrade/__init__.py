"""What one release and the next must be able to say to each other."""
