"""The page in the browser beside a running classifier; the only room with aiohttp."""
