"""Uses as the disks in the instance directories tell them, chain by chain."""
