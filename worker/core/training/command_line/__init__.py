"""`brushwork train` on a terminal: its flags and its progress."""
