"""Examples: scripts of one screen, and the packages `demo` and `emergence`."""
