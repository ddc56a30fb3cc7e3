"""Bridges to other libraries, each a module that needs its library and is imported by its own name."""
