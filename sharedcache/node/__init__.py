"""The agent's service: effects in order, through ports; nothing decided here."""
