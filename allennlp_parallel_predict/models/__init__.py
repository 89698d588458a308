"""The archive, the one copy of a model that workers share, and whether a model keeps state."""
