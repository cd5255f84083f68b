"""What talks to a running classifier: its process, a listener, requests."""
