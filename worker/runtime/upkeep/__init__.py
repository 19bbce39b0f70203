"""Jobs that the io worker orders itself: they delete unused files and make missing thumbnails."""
