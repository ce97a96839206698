"""A real NFSv4.1 server and guests with real clients, for tests."""
