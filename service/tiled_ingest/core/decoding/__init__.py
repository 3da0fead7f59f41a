"""From bytes to documents: the one place where foreign bytes are read; events of one layout all at once."""
