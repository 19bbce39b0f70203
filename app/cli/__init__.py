"""What `brushwork COMMAND` does, one module per command, loaded only when it is called."""
