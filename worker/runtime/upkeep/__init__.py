"""Jobs that the io worker orders itself: delete unused files, make thumbnails, check the files."""
