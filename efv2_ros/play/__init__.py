"""Live replay: a bag played to the running classifier, its results recorded."""
