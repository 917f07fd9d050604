"""Writes definitions of topics and ACLs for those who administer a cluster, in the format of their tool."""
