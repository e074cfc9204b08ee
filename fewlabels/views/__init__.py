"""How an image is seen: weak and strong views, drawn per sample on the device that trains."""
