"""What the command line shows: tables on stdout, counting bars on stderr."""
