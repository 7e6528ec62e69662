"""Where models come from, and how every stage gets hold of them."""
