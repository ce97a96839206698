"""Uses as libvirt tells them: running and defined domains, and what befalls them."""
