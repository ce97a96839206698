"""``sharedcache standalone``: one host, with a private ZooKeeper of its own."""
