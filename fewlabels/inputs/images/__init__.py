"""Images: decoded once, kept, and augmented on the device."""
