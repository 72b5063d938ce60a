"""Texts that are sent to models: one file a purpose."""
