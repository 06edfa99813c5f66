"""One room for each command: it parses, calls one function, prints."""
