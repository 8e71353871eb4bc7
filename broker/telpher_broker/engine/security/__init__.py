"""Users, tokens, grants and namespaces: who may do what."""
