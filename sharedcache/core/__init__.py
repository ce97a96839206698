"""The pure core: no IO, no clock; time, identity and randomness enter as data."""
