"""What can be wrong with a data set, found before it is trained on."""
