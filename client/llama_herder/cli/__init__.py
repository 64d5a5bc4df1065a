"""The `herder` command (extra `cli`): a client first; the server's commands are loaded only where they are typed."""
