"""``sharedcache doctor``: what is wrong with this host's set-up."""
