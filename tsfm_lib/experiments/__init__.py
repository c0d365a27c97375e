"""One module per paper: each function is one experiment and returns a tidy frame for the rule of a claim."""
