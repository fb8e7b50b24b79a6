"""Folders and object stores: artifacts, ledger, locks, leases and records."""
