"""Against a real HTTP server on loopback, by way of the Hub's own unmodified client."""
