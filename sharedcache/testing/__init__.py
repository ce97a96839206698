"""What somebody else's tests may use: contracts that their own parts must pass."""
