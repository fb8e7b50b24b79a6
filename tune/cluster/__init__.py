"""Ray clusters: connection, resources, autoscaler and leases across nodes."""
