"""Processes: the agent and the cleaner as daemons."""
