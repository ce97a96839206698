"""The protocol in Promela, and what Spin is to say of it."""
