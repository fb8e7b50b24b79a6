"""Ray clusters: connecting, resources, autoscaler and leases across nodes."""
