"""The commands of `brushwork`, one module per command, imported when it runs."""
