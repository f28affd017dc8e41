"""A page in the browser that asks about a video, points at objects and finds them; needs the extra `app`."""
