"""Photos, videos and pictures for people: reading, encoding, annotating."""
