"""ZooKeeper through tooz and kazoo: groups, the election, records, transactions."""
