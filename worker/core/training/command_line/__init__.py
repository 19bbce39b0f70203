"""`brushwork train` in a terminal: flags and progress."""
