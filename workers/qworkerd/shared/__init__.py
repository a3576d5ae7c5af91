"""Memory and pipes that the processes of a node share."""
