"""Before anything starts: the experiment that is asked for, its checks, and what it will take."""
