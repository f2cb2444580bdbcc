"""Certificates, clusters, ports and bare clients for real nats-servers. Read first: cluster.py."""
