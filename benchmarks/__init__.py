"""Programs that measure accuracy and speed; each prints the command, the machine and the versions with its figures."""
