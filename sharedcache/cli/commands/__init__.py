"""The commands of ``sharedcache``, a module a noun."""
