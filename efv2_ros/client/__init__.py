"""Clients of a running classifier: its process, a listener, requests."""
