"""Changes of many images at once: chosen, shown before they happen, undone as one."""
