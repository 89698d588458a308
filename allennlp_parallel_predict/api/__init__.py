"""The interfaces for Python and asyncio, and the thread that serves them."""
