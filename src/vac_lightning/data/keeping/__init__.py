"""What is kept between runs: where, under which keys, and the crops."""
